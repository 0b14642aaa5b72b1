use jsonwebtoken::Algorithm;

use super::settings::InvalidJwtSettings;

/// For a secret, the usual one first, as in the lists below.
pub(super) const HMAC: &[Algorithm] = &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
pub(super) const RSA: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];
pub(super) const P256: &[Algorithm] = &[Algorithm::ES256];
pub(super) const P384: &[Algorithm] = &[Algorithm::ES384];
pub(super) const ED25519: &[Algorithm] = &[Algorithm::EdDSA];

/// The algorithms that the settings name; none means the usual one of each key.
#[derive(Debug, Clone, Default)]
pub(super) struct Accepted(Vec<Algorithm>);

impl Accepted {
    pub(super) fn parse(names: &[String]) -> Result<Self, InvalidJwtSettings> {
        let known = |name: &String| {
            name.parse().map_err(|_| InvalidJwtSettings::UnknownAlgorithm(name.clone()))
        };
        names.iter().map(known).collect::<Result<_, _>>().map(Self)
    }

    /// Those that a key may be used with, of all that fit it. Perhaps none.
    pub(super) fn of_key(&self, fitting: &[Algorithm]) -> Vec<Algorithm> {
        if self.0.is_empty() {
            return fitting[..1].to_vec();
        }
        self.0.iter().copied().filter(|one| fitting.contains(one)).collect()
    }

    /// The same for a key that says of itself what it is for (RFC 7517, 4.4).
    pub(super) fn of_pinned_key(&self, pinned: Algorithm, fitting: &[Algorithm]) -> Vec<Algorithm> {
        let accepted = self.0.is_empty() || self.0.contains(&pinned);
        if accepted && fitting.contains(&pinned) { vec![pinned] } else { Vec::new() }
    }

    /// Whether a token of this algorithm can have been signed with a published key. A secret is not
    /// published.
    pub(super) fn may_be_published(&self, algorithm: Algorithm) -> bool {
        !HMAC.contains(&algorithm) && (self.0.is_empty() || self.0.contains(&algorithm))
    }

    /// What to sign with a secret.
    pub(super) fn to_sign(&self) -> Algorithm {
        self.of_key(HMAC).first().copied().unwrap_or(HMAC[0])
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Algorithm> {
        self.0.iter().copied()
    }
}

pub(super) fn names(algorithms: &[Algorithm]) -> String {
    let names: Vec<_> = algorithms.iter().map(|one| format!("{one:?}")).collect();
    names.join(", ")
}
