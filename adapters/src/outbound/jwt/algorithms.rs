use jsonwebtoken::Algorithm;

use super::error::InvalidJwtSettings;

/// The algorithms that a secret supports. This list and those of the other key types begin with the default.
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

/// The accepted algorithms in the settings. Empty means the default of each key.
#[derive(Debug, Clone, Default)]
pub(super) struct AcceptedAlgorithms(Vec<Algorithm>);

impl AcceptedAlgorithms {
    pub(super) fn parse(names: &[String]) -> Result<Self, InvalidJwtSettings> {
        let parse = |name: &String| {
            name.parse().map_err(|_| InvalidJwtSettings::UnknownAlgorithm(name.clone()))
        };
        names.iter().map(parse).collect::<Result<_, _>>().map(Self)
    }

    /// The accepted algorithms among those that a key supports. May be empty. If the settings list no
    /// algorithm, the result is the key's default, the first one in `supported`.
    pub(super) fn for_key(&self, supported: &[Algorithm]) -> Vec<Algorithm> {
        if self.0.is_empty() {
            return supported[..1].to_vec();
        }
        self.0.iter().copied().filter(|one| supported.contains(one)).collect()
    }

    /// The algorithm of a key that declares it (`alg`; RFC 7517, 4.4). Empty if the algorithm is not
    /// accepted, or if the type of the key does not support it.
    pub(super) fn for_pinned_key(
        &self,
        pinned: Algorithm,
        supported: &[Algorithm],
    ) -> Vec<Algorithm> {
        let accepted = self.0.is_empty() || self.0.contains(&pinned);
        if accepted && supported.contains(&pinned) { vec![pinned] } else { Vec::new() }
    }

    /// Whether a key from a JWKS may be used with this algorithm. HMAC is excluded, because a JWKS contains
    /// no secrets.
    pub(super) fn is_allowed_in_jwks(&self, algorithm: Algorithm) -> bool {
        !HMAC.contains(&algorithm) && (self.0.is_empty() || self.0.contains(&algorithm))
    }

    /// The algorithm with which a secret signs tokens.
    pub(super) fn to_sign(&self) -> Algorithm {
        self.for_key(HMAC).first().copied().unwrap_or(HMAC[0])
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Algorithm> {
        self.0.iter().copied()
    }
}

pub(super) fn names(algorithms: &[Algorithm]) -> String {
    let names: Vec<_> = algorithms.iter().map(|one| format!("{one:?}")).collect();
    names.join(", ")
}
