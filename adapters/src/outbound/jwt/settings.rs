use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::algorithms::Accepted;
use super::jwks_fetch::WebJwks;
use super::key_material::KeyMaterial;

/// Which tokens to believe.
#[derive(Debug, Clone)]
pub struct JwtSettings {
    /// What tokens are signed with: several keys, as while an issuer changes from one to the next. At
    /// most [`JwtSettings::MAX_KEYS`].
    pub keys: Vec<JwtKey>,
    /// Where an identity provider publishes more of them.
    pub jwks: Option<JwksSettings>,
    /// The only algorithms that are accepted, by their names in RFC 7518 and RFC 8037 (`RS256`,
    /// `EdDSA`, …). A key takes those of them that fit it: a token never chooses how it is checked.
    /// None means the usual one for each key: `HS256`, `RS256`, `ES256` or `ES384` by its curve,
    /// `EdDSA`, or what a JWK says of itself.
    pub algorithms: Vec<String>,
    /// What `iss` must be. Not looked at if absent.
    pub issuer: Option<String>,
    /// One of these must be in `aud`. If there are none, a token may be for anybody.
    pub audiences: Vec<String>,
    /// How far the issuer's clock may be off: added to `exp`, taken from `nbf` and `iat`.
    pub leeway: Duration,
    /// Which claim names the user: a claim's full name, or a path with dots (`ext.user.id`). Its
    /// value is a string or a whole number.
    pub user_claim: String,
    /// Which claim holds the scopes, named likewise: a string with spaces between them (RFC 8693,
    /// 4.2) or an array of strings.
    pub scope_claim: String,
}

impl JwtSettings {
    /// The most keys that are set here or in files. As many are tried with a token that does not say
    /// which one signed it.
    pub const MAX_KEYS: usize = 16;

    /// The usual settings with these keys: any issuer and audience, no leeway, the claims `sub` and
    /// `scope`.
    pub fn new(keys: impl IntoIterator<Item = JwtKey>) -> Self {
        Self {
            keys: keys.into_iter().collect(),
            jwks: None,
            algorithms: Vec::new(),
            issuer: None,
            audiences: Vec::new(),
            leeway: Duration::ZERO,
            user_claim: "sub".to_owned(),
            scope_claim: "scope".to_owned(),
        }
    }

    /// Whether keys come from where they are published, in a set that changes by itself.
    pub(super) fn has_published_keys(&self) -> bool {
        self.jwks.is_some() || self.keys.iter().any(|key| matches!(key, JwtKey::JwksFile(_)))
    }
}

/// What tokens are signed with, as the verifier knows it. Files are read again when they change.
#[derive(Clone)]
pub enum JwtKey {
    /// A secret that issuer and verifier share (HMAC).
    Secret(Secret),
    /// A file with such a secret and nothing else. A line end after it is not part of it.
    SecretFile(PathBuf),
    /// The issuer's public keys: PEM of RSA (2048 bits or more), P-256, P-384 or Ed25519, one after
    /// the other.
    PublicPem(String),
    /// A file with such PEM.
    PublicPemFile(PathBuf),
    /// A file with a JWKS (RFC 7517, 5). Of its keys the public ones that sign are taken.
    JwksFile(PathBuf),
}

impl JwtKey {
    /// Reads it, and says what is wrong with it.
    pub fn check(&self) -> Result<(), InvalidJwtSettings> {
        KeyMaterial::read(self)?.trusted_keys(&Accepted::default()).map(drop)
    }
}

impl fmt::Debug for JwtKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret(_) => f.write_str("Secret(…)"),
            Self::SecretFile(path) => f.debug_tuple("SecretFile").field(path).finish(),
            // Public, but whoever mistakes a private key for it should not find it in a log.
            Self::PublicPem(_) => f.write_str("PublicPem(…)"),
            Self::PublicPemFile(path) => f.debug_tuple("PublicPemFile").field(path).finish(),
            Self::JwksFile(path) => f.debug_tuple("JwksFile").field(path).finish(),
        }
    }
}

/// An identity provider's published keys (JWKS), and how they are kept.
#[derive(Debug, Clone)]
pub struct JwksSettings {
    /// `https://…`; `http://…` for loopback only.
    pub url: String,
    /// PEM certificates to trust in the place of the system's.
    pub ca_file: Option<PathBuf>,
    /// How often they are fetched.
    pub refresh: Duration,
    /// How long after a fetch a token with an unknown key id causes no other.
    pub cooldown: Duration,
    /// For how long keys are believed that cannot be fetched again. For good if absent.
    pub max_stale: Option<Duration>,
    /// How long one fetch may take.
    pub timeout: Duration,
}

impl JwksSettings {
    /// The usual settings with this URL.
    pub fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            ca_file: None,
            refresh: Duration::from_mins(5),
            cooldown: Duration::from_secs(10),
            max_stale: Some(Duration::from_hours(24)),
            timeout: Duration::from_secs(5),
        }
    }

    /// Whether the URL may be fetched and the certificates can be read. Nothing is fetched.
    pub fn check(&self) -> Result<(), InvalidJwtSettings> {
        WebJwks::new(self).map(drop)
    }
}

/// A secret for HMAC. Never shown.
#[derive(Clone, PartialEq, Eq)]
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
    /// No key can be used with it.
    #[error("{algorithm} fits no key that is set; they are for {fitting}")]
    AlgorithmDoesNotFit {
        /// The algorithm that was asked for.
        algorithm: String,
        /// Those that fit the keys.
        fitting: String,
    },
    /// A key that none of the algorithms can be used with. Holds those that could.
    #[error("a key that is set is for {0}, and none of them is among the accepted algorithms")]
    KeyOfNoUse(String),
    /// Nothing to check tokens with.
    #[error("no key is set")]
    NoKey,
    /// More than [`JwtSettings::MAX_KEYS`].
    #[error("{0} keys are set; at most {max} can be", max = JwtSettings::MAX_KEYS)]
    TooManyKeys(usize),
    /// Not a JWKS, or nothing in it can be used. Holds why.
    #[error("{0}")]
    Jwks(String),
    /// A file that cannot be read.
    #[error("cannot read {}: {reason}", path.display())]
    Unreadable {
        /// Which one.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A file with something wrong in it.
    #[error("{}: {problem}", path.display())]
    InFile {
        /// Which one.
        path: PathBuf,
        /// What.
        problem: Box<InvalidJwtSettings>,
    },
    /// Not a place that keys may come from. Holds why.
    #[error("{0}")]
    Url(&'static str),
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
        let settings = JwtSettings::new([JwtKey::Secret(Secret::new([b'x'; 32]).unwrap())]);
        assert!(!format!("{settings:?}").contains("xx"));
        assert!(!format!("{settings:?}").contains("120, 120"));
    }
}
