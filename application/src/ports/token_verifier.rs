use std::collections::HashSet;
use std::fmt;

use async_trait::async_trait;
use belfry_domain::{Timestamp, UserId};

use crate::port_error::PortError;

/// Verifies bearer tokens.
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
#[async_trait]
pub trait TokenVerifier: Send + Sync {
    /// Returns the claims of a token that was signed by a trusted issuer with an expected algorithm, has
    /// the expected audience and is valid now.
    ///
    /// With a known key this takes no I/O and negligible time. With an unknown key it may wait a few seconds
    /// for the key. [`TokenError::Port`] means that the token could not be verified; a retry may succeed.
    async fn verify(&self, token: &BearerToken) -> Result<Claims, TokenError>;

    /// The keys that have not been withdrawn. They include keys whose source cannot be read at the moment,
    /// even those that have become too old to verify tokens: an outage withdraws no key.
    fn accepted_keys(&self) -> HashSet<KeyFingerprint>;
}

/// Identifies a key that verifies tokens, by its content. A key that is published under another id or
/// moved to another file keeps its fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct KeyFingerprint(pub [u8; 16]);

/// Why a token was rejected.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The token was valid and has expired.
    #[error("the token has expired")]
    Expired,
    /// The token becomes valid later.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// The token is malformed or not trusted. The reason is for logs, not for the client.
    #[error("the token is not valid ({0})")]
    Invalid(&'static str),
    /// A trusted issuer signed the token, but a claim is missing or cannot be used. Contains the reason as the
    /// second part of a sentence that begins with "the token". The reason may be sent to the client, because
    /// it does not help to forge a token.
    #[error("the token {0}")]
    Claim(String),
    /// The token could not be verified. Retry later.
    #[error(transparent)]
    Port(#[from] PortError),
}

/// A token as received, not yet verified. Never logged or stored.
#[derive(Clone)]
pub struct BearerToken(Box<str>);

/// The token has more than [`BearerToken::MAX_BYTES`] bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a token has at most {} bytes", BearerToken::MAX_BYTES)]
pub struct TokenTooLong;

impl BearerToken {
    /// The maximum size in bytes.
    pub const MAX_BYTES: usize = 8 * 1024;

    /// Parses a bare token or one after `Bearer ` (RFC 6750, 2.1; case-insensitive). `None` if there is
    /// no token.
    pub fn parse(raw: &str) -> Result<Option<Self>, TokenTooLong> {
        let raw = raw.trim();
        let token = match raw.split_once(' ') {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer") => rest.trim_start(),
            _ if raw.eq_ignore_ascii_case("bearer") => "",
            _ => raw,
        };
        if token.len() > Self::MAX_BYTES {
            return Err(TokenTooLong);
        }
        Ok((!token.is_empty()).then(|| Self(token.into())))
    }

    /// The secret text, for the verifier.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BearerToken(…)")
    }
}

/// The contents of a verified token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// The authenticated user.
    pub user: UserId,
    /// The token's permissions.
    pub scopes: Scopes,
    /// When the token was issued, if known.
    pub issued_at: Option<Timestamp>,
    /// When the token expires, including the leeway.
    pub expires_at: Timestamp,
    /// The key that verified the token.
    pub key: KeyFingerprint,
}

/// The token's permissions: space-separated words (RFC 6749, 3.3). `None` stands for an empty list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scopes(Option<Box<str>>);

impl Scopes {
    /// Permits creating notifications for any user.
    pub const WRITE: &'static str = "notifications:write";
    /// Permits revoking any user's tokens.
    pub const REVOKE: &'static str = "tokens:revoke";
    /// Permits erasing any user.
    pub const ERASE: &'static str = "users:erase";

    /// Parses a space-separated list.
    pub fn parse(raw: &str) -> Self {
        let raw = raw.trim();
        Self((!raw.is_empty()).then(|| raw.into()))
    }

    /// Whether the list contains `scope`.
    pub fn contains(&self, scope: &str) -> bool {
        self.0.as_deref().is_some_and(|list| list.split(' ').any(|listed| listed == scope))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_is_parsed_with_and_without_its_scheme() {
        for raw in ["abc", " abc ", "Bearer abc", "bearer  abc", "BEARER abc"] {
            assert_eq!(BearerToken::parse(raw).unwrap().unwrap().reveal(), "abc", "{raw:?}");
        }
        let other_scheme = BearerToken::parse("Basic abc").unwrap().unwrap();
        assert_eq!(other_scheme.reveal(), "Basic abc", "another scheme is part of the token");
        for raw in ["", "  ", "Bearer "] {
            assert!(BearerToken::parse(raw).unwrap().is_none(), "{raw:?}");
        }
        let longest = "x".repeat(8_192);
        assert!(BearerToken::parse(&format!("Bearer {longest}")).unwrap().is_some());
        assert_eq!(BearerToken::parse(&format!("{longest}x")).unwrap_err(), TokenTooLong);
    }

    #[test]
    fn token_is_hidden_in_debug_output() {
        let token = BearerToken::parse("s3cret").unwrap().unwrap();
        assert_eq!(format!("{token:?}"), "BearerToken(…)");
    }

    #[test]
    fn scope_matches_whole_words_only() {
        let scopes = Scopes::parse("notifications:write admin");
        assert!(scopes.contains(Scopes::WRITE));
        assert!(!Scopes::parse("notifications:writer").contains(Scopes::WRITE));
        assert!(!Scopes::default().contains(""));
    }
}
