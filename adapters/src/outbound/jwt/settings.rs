use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::secret::{GuessableSecretPolicy, Secret};

/// The rules by which tokens are accepted.
#[derive(Debug, Clone)]
pub struct JwtSettings {
    /// The keys that verify tokens. Several keys allow an issuer to rotate its key. At most
    /// [`JwtSettings::MAX_KEYS`].
    pub keys: Vec<JwtKey>,
    /// How to handle secrets that are easy to guess, at the start and when files change.
    pub guessable_secrets: GuessableSecretPolicy,
    /// Where an identity provider publishes further keys.
    pub jwks: Option<JwksSettings>,
    /// The only accepted algorithms, by their names in RFC 7518 and RFC 8037 (`RS256`, `EdDSA`, …).
    /// Each key is used only with those that its type supports, so a token cannot choose how it is
    /// verified. Empty means the default of each key: the `alg` of a JWK, else `HS256`, `RS256`,
    /// `ES256`, `ES384` or `EdDSA` by the type and curve of the key.
    pub algorithms: Vec<String>,
    /// The required `iss`. `None` accepts any issuer.
    pub issuer: Option<String>,
    /// `aud` must contain one of these. Empty accepts any audience.
    pub audiences: Vec<String>,
    /// The tolerated clock difference to the issuer: extends `exp`, and allows `nbf` and `iat` to be
    /// this far in the future.
    pub leeway: Duration,
    /// The maximum lifetime of a token. A token expires at most this long, plus the leeway, after its time of
    /// issue (`iat`). A token without `iat` is rejected if it has no `exp`, or one that is more than this
    /// long from now. `None` means no limit.
    pub max_lifetime: Option<Duration>,
    /// The claims that may contain the user id, in order of precedence. Each is the claim's full name, or a
    /// path with dots (`ext.user.id`). The first one that a token has must be a string or an integer.
    pub user_claims: Vec<String>,
    /// How long a token without `exp` is valid after each verification. `None` requires `exp`.
    pub lifetime_without_exp: Option<Duration>,
    /// The claim with the scopes, by its full name or a path with dots. Its value is a space-separated string
    /// (RFC 8693, 4.2) or an array of strings.
    pub scope_claim: String,
}

impl JwtSettings {
    /// The maximum number of keys in settings and files. A token without a key id is verified
    /// against up to this many keys.
    pub const MAX_KEYS: usize = 16;

    /// The default settings with these keys: any issuer and audience, no leeway, the claims `sub` and
    /// `scope`.
    pub fn new(keys: impl IntoIterator<Item = JwtKey>) -> Self {
        Self {
            keys: keys.into_iter().collect(),
            guessable_secrets: GuessableSecretPolicy::default(),
            jwks: None,
            algorithms: Vec::new(),
            issuer: None,
            audiences: Vec::new(),
            leeway: Duration::ZERO,
            max_lifetime: None,
            user_claims: vec!["sub".to_owned()],
            lifetime_without_exp: None,
            scope_claim: "scope".to_owned(),
        }
    }

    /// Whether keys come from a JWKS, whose content may change at any time.
    pub(super) fn has_jwks(&self) -> bool {
        self.jwks.is_some() || self.keys.iter().any(|key| matches!(key, JwtKey::JwksFile(_)))
    }
}

/// A source of keys that verify tokens. Files are read again when they change.
#[derive(Clone)]
pub enum JwtKey {
    /// A secret that issuer and verifier share (HMAC).
    Secret(Secret),
    /// A file that contains only such a secret. A trailing line break is not part of the secret.
    SecretFile(PathBuf),
    /// The issuer's public keys: concatenated PEM of RSA (2048 bits or more), P-256, P-384 or Ed25519.
    PublicPem(String),
    /// A file with such PEM.
    PublicPemFile(PathBuf),
    /// A file with a JWKS (RFC 7517, 5). Only its public signature keys are used.
    JwksFile(PathBuf),
}

impl fmt::Debug for JwtKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret(_) => f.write_str("Secret(…)"),
            Self::SecretFile(path) => f.debug_tuple("SecretFile").field(path).finish(),
            // A public key is not secret, but an operator may have configured a private key by mistake.
            Self::PublicPem(_) => f.write_str("PublicPem(…)"),
            Self::PublicPemFile(path) => f.debug_tuple("PublicPemFile").field(path).finish(),
            Self::JwksFile(path) => f.debug_tuple("JwksFile").field(path).finish(),
        }
    }
}

/// An identity provider's published keys (JWKS), and how they are kept up to date.
#[derive(Debug, Clone)]
pub struct JwksSettings {
    /// `https://…`; `http://…` for loopback only.
    pub url: String,
    /// A file with PEM certificates to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// The interval between fetches.
    pub refresh: Duration,
    /// The time after a fetch in which an unknown key id does not cause another fetch.
    pub cooldown: Duration,
    /// How long keys stay in use while they cannot be fetched again. `None` means without limit.
    pub max_stale: Option<Duration>,
    /// The timeout of one fetch.
    pub timeout: Duration,
}

impl JwksSettings {
    /// The default settings with this URL.
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
}
