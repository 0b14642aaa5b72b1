use std::fmt;

use async_trait::async_trait;
use belfry_domain::{Timestamp, UserId};

use super::PortError;

/// Knows who a token speaks for.
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
#[async_trait]
pub trait TokenVerifier: Send + Sync {
    /// The token's claims, if it was signed by a trusted issuer with an expected algorithm, is for
    /// this audience, and holds now.
    ///
    /// Where it can be told, this takes neither I/O nor noticeable time. A token that names a key
    /// which is not known may wait, for seconds at most, until that can be told;
    /// [`TokenError::Port`] says that it cannot be told now, which is worth another try and no
    /// judgement of the token.
    async fn verify(&self, token: &BearerToken) -> Result<Claims, TokenError>;
}

/// Why a token was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It held once, and does not any more.
    #[error("the token has expired")]
    Expired,
    /// It does not hold yet.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// It is not a token of ours. The reason is for logs, not for the one who showed it.
    #[error("the token is not valid ({0})")]
    Invalid(&'static str),
    /// It could not be checked now.
    #[error(transparent)]
    Port(#[from] PortError),
}

/// A token as it was shown: not yet checked, and never to be written anywhere.
#[derive(Clone)]
pub struct BearerToken(Box<str>);

/// What was shown has more than [`BearerToken::MAX_BYTES`] bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a token has at most {} bytes", BearerToken::MAX_BYTES)]
pub struct TokenTooLong;

impl BearerToken {
    /// The most bytes that a token has.
    pub const MAX_BYTES: usize = 8 * 1024;

    /// Takes a bare token or one behind `Bearer ` (RFC 6750, 2.1; the word in any case). `None` if
    /// nothing is left: then none was shown.
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

    /// The token's text, for the one who checks it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BearerToken(…)")
    }
}

/// What a token says, once it is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Whom it speaks for.
    pub user: UserId,
    /// What its bearer may do besides reading and changing their own inbox.
    pub scopes: Scopes,
    /// When it was issued, if it says so.
    pub issued_at: Option<Timestamp>,
    /// Until when it holds, leeway included.
    pub expires_at: Timestamp,
}

/// What a bearer may do: space-separated words (RFC 6749, 3.3).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scopes(Option<Box<str>>);

impl Scopes {
    /// May write notifications for any user.
    pub const WRITE: &'static str = "notifications:write";
    /// May revoke any user's tokens.
    pub const REVOKE: &'static str = "tokens:revoke";

    /// Takes a space-separated list.
    pub fn parse(raw: &str) -> Self {
        let raw = raw.trim();
        Self((!raw.is_empty()).then(|| raw.into()))
    }

    /// Whether `scope` is among them.
    pub fn contain(&self, scope: &str) -> bool {
        self.0.as_deref().is_some_and(|all| all.split(' ').any(|one| one == scope))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_bare_or_behind_its_scheme() {
        for raw in ["abc", " abc ", "Bearer abc", "bearer  abc", "BEARER abc"] {
            assert_eq!(BearerToken::parse(raw).unwrap().unwrap().reveal(), "abc", "{raw:?}");
        }
        for raw in ["", "  ", "Bearer "] {
            assert!(BearerToken::parse(raw).unwrap().is_none(), "{raw:?}");
        }
        let longest = "x".repeat(BearerToken::MAX_BYTES);
        assert!(BearerToken::parse(&format!("Bearer {longest}")).unwrap().is_some());
        assert_eq!(BearerToken::parse(&format!("{longest}x")).unwrap_err(), TokenTooLong);
    }

    #[test]
    fn a_token_never_shows_in_debug() {
        let token = BearerToken::parse("s3cret").unwrap().unwrap();
        assert!(!format!("{token:?}").contains("s3cret"));
    }

    #[test]
    fn a_scope_is_a_whole_word() {
        let scopes = Scopes::parse("notifications:write admin");
        assert!(scopes.contain(Scopes::WRITE));
        assert!(!Scopes::parse("notifications:writer").contain(Scopes::WRITE));
        assert!(!Scopes::default().contain(""));
    }
}
