use std::path::{Path, PathBuf};

/// Why a secret is easy to guess, whatever its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GuessableSecret {
    /// A text that documentation uses in place of a secret.
    #[error("the secret is a placeholder from documentation")]
    Placeholder,
    /// PEM (RFC 7468) or a JWK (RFC 7517). A public key is known to everyone.
    #[error("the secret is the text of a key in PEM or JSON; a public key is no secret")]
    KeyText,
    /// Few different bytes, such as one character repeated.
    #[error("the secret has fewer than 6 different bytes")]
    LowVariety,
}

/// Why tokens cannot be verified with these settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidJwtSettings {
    /// A secret of zero bytes.
    #[error("the secret must not be empty")]
    EmptySecret,
    /// A secret that can be guessed, where [`GuessableSecretPolicy::Reject`] is set.
    ///
    /// [`GuessableSecretPolicy::Reject`]: super::GuessableSecretPolicy::Reject
    #[error("{0}; use 32 random bytes")]
    GuessableSecret(GuessableSecret),
    /// Not PEM, or a key type that is not supported.
    #[error("not a PEM public key of RSA, P-256, P-384 or Ed25519")]
    NotAPublicKey,
    /// A private key, which must not be on a machine that only verifies tokens.
    #[error("this is a private key; tokens are verified with the public key")]
    PrivateKey,
    /// An RSA key that is too short. Contains its size in bits.
    #[error("the RSA key has {0} bits and must have at least 2048")]
    WeakRsaKey(usize),
    /// An accepted algorithm with an unknown name. Contains the name.
    #[error("unknown algorithm {0:?}")]
    UnknownAlgorithm(String),
    /// No configured key supports this accepted algorithm.
    #[error("no configured key can be used with {algorithm}; the keys support {supported}")]
    AlgorithmWithoutKey {
        /// The accepted algorithm.
        algorithm: String,
        /// The algorithms that the keys support.
        supported: String,
    },
    /// A key that supports none of the accepted algorithms. Contains the algorithms that it supports.
    #[error("a configured key supports only {0}, and none of these is an accepted algorithm")]
    KeyWithoutAlgorithm(String),
    /// Neither a key nor a JWKS URL is configured.
    #[error("no key is configured")]
    NoKey,
    /// More keys than [`JwtSettings::MAX_KEYS`](super::JwtSettings::MAX_KEYS).
    #[error("{keys} keys are configured; at most {max} are allowed")]
    TooManyKeys {
        #[expect(missing_docs, reason = "the message names it")]
        keys: usize,
        #[expect(missing_docs, reason = "the message names it")]
        max: usize,
    },
    /// Not a JWKS, or a JWKS without a usable key. Contains the reason.
    #[error("{0}")]
    Jwks(String),
    /// A file that cannot be read or must not be used. Contains its path and the reason.
    #[error("{0}")]
    File(String),
    /// A file that is not text.
    #[error("it is not UTF-8")]
    NotUtf8,
    /// A file with invalid content.
    #[error("{}: {problem}", path.display())]
    InFile {
        #[expect(missing_docs, reason = "the message names it")]
        path: PathBuf,
        /// The problem with the content.
        problem: Box<InvalidJwtSettings>,
    },
    /// Keys cannot be fetched from the JWKS URL. Contains the reason.
    #[error("{0}")]
    Url(&'static str),
    /// The file of root certificates contains none, or an invalid one.
    #[error("the file must contain PEM certificates")]
    NotCertificates,
    /// The name of a claim is empty.
    #[error("the name of a claim must not be empty")]
    EmptyClaimName,
}

impl InvalidJwtSettings {
    /// Adds the path of the file that has the problem.
    pub(super) fn in_file(self, path: &Path) -> Self {
        Self::InFile { path: path.to_owned(), problem: Box::new(self) }
    }
}
