use std::fmt;
use std::time::Duration;

use jsonwebtoken::Algorithm;

/// Which tokens to believe.
#[derive(Debug, Clone)]
pub struct JwtSettings {
    /// What tokens are signed with.
    pub key: JwtKey,
    /// The only algorithms that are accepted, by their names in RFC 7518 and RFC 8037 (`RS256`,
    /// `EdDSA`, …). All must fit the key: a token never chooses how it is checked. None means the
    /// usual one for the key: `HS256`, `RS256`, `ES256` or `ES384` by its curve, `EdDSA`.
    pub algorithms: Vec<String>,
    /// What `iss` must be. Not looked at if absent.
    pub issuer: Option<String>,
    /// One of these must be in `aud`. If there are none, a token may be for anybody.
    pub audiences: Vec<String>,
    /// How far the issuer's clock may be off: added to `exp`, taken from `nbf`.
    pub leeway: Duration,
    /// Which claim names the user: a claim's full name, or a path with dots (`ext.user.id`). Its
    /// value is a string or a whole number.
    pub user_claim: String,
    /// Which claim holds the scopes, named likewise: a string with spaces between them (RFC 8693,
    /// 4.2) or an array of strings.
    pub scope_claim: String,
}

impl JwtSettings {
    /// The usual settings with this key: any issuer and audience, no leeway, the claims `sub` and
    /// `scope`.
    pub fn new(key: JwtKey) -> Self {
        Self {
            key,
            algorithms: Vec::new(),
            issuer: None,
            audiences: Vec::new(),
            leeway: Duration::ZERO,
            user_claim: "sub".to_owned(),
            scope_claim: "scope".to_owned(),
        }
    }

    /// The algorithms that are named, if there are such.
    pub(super) fn named_algorithms(&self) -> Result<Vec<Algorithm>, InvalidJwtSettings> {
        let known = |name: &String| {
            name.parse().map_err(|_| InvalidJwtSettings::UnknownAlgorithm(name.clone()))
        };
        self.algorithms.iter().map(known).collect()
    }
}

/// What tokens are signed with, as the verifier knows it.
#[derive(Clone)]
pub enum JwtKey {
    /// A secret that issuer and verifier share (HMAC).
    Secret(Secret),
    /// The issuer's public key: PEM of RSA (2048 bits or more), P-256, P-384 or Ed25519.
    PublicPem(String),
}

impl fmt::Debug for JwtKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secret(_) => "Secret(…)",
            // Public, but whoever mistakes a private key for it should not find it in a log.
            Self::PublicPem(_) => "PublicPem(…)",
        })
    }
}

/// A secret for HMAC. Never shown.
#[derive(Clone)]
pub struct Secret(Box<[u8]>);

impl Secret {
    /// As many bytes as SHA-256 gives: what a secret should have (RFC 7518, 3.2).
    pub const STRONG_BYTES: usize = 32;

    /// Takes the bytes as they stand; there must be some.
    pub fn new(bytes: impl Into<Box<[u8]>>) -> Result<Self, InvalidJwtSettings> {
        let bytes = bytes.into();
        if bytes.is_empty() { Err(InvalidJwtSettings::NoSecret) } else { Ok(Self(bytes)) }
    }

    /// Whether it can be found by trying, offline and against a single token. It is taken all the
    /// same: issuers in the field have such secrets, and whoever moves to Belfry cannot always
    /// change them first. But somebody should say so.
    pub fn is_weak(&self) -> bool {
        self.0.len() < Self::STRONG_BYTES
    }

    pub(super) fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Why tokens cannot be checked with these settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidJwtSettings {
    /// A secret of no bytes.
    #[error("the secret must not be empty")]
    NoSecret,
    /// Not PEM of a kind of key that is known here.
    #[error("not a PEM public key of RSA, P-256, P-384 or Ed25519")]
    NotAPublicKey,
    /// A private key has no business on a machine that only checks tokens.
    #[error("this is a private key; tokens are checked with its public half")]
    PrivateKey,
    /// Holds the key's size in bits.
    #[error("the RSA key has {0} bits and must have at least 2048")]
    WeakRsaKey(usize),
    /// Holds its name.
    #[error("{0:?} is not an algorithm known here")]
    UnknownAlgorithm(String),
    /// Another kind of algorithm than the key's.
    #[error("{algorithm} does not fit the key, which is for {fitting}")]
    AlgorithmDoesNotFit {
        /// The algorithm that was asked for.
        algorithm: String,
        /// Those that fit the key.
        fitting: String,
    },
    /// The name of a claim is empty.
    #[error("the name of a claim must not be empty")]
    NamelessClaim,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_something_and_never_shown() {
        assert_eq!(Secret::new([]).unwrap_err(), InvalidJwtSettings::NoSecret);
        assert!(Secret::new([b'x'; 31]).unwrap().is_weak());
        assert!(!Secret::new([b'x'; 32]).unwrap().is_weak());
        let settings = JwtSettings::new(JwtKey::Secret(Secret::new([b'x'; 32]).unwrap()));
        assert!(!format!("{settings:?}").contains("xx"));
        assert!(!format!("{settings:?}").contains("120, 120"));
    }
}
