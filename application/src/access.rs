//! Authorization: the scopes that actions require, and why a token is rejected.

use std::sync::Arc;

use crate::port_error::PortError;
use crate::ports::{Claims, Scopes, TokenTooLong};

/// The actions that may require a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Read the user's own inbox and receive its events.
    ReadInbox,
    /// Mark notifications in the user's own inbox as read, and delete them.
    ChangeInbox,
    /// Create notifications for any user.
    Create,
    /// Revoke any user's tokens.
    Revoke,
    /// Erase any user's inbox.
    Erase,
}

/// The scope that each action requires; `None` if every valid token permits the action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// For [`Action::ReadInbox`].
    pub read: Option<Arc<str>>,
    /// For [`Action::ChangeInbox`].
    pub change: Option<Arc<str>>,
    /// For [`Action::Create`].
    pub create: Arc<str>,
    /// For [`Action::Revoke`].
    pub revoke: Arc<str>,
    /// For [`Action::Erase`].
    pub erase: Arc<str>,
}

impl Default for Access {
    /// Users access their own inbox without a scope. Actions that concern other users require one.
    fn default() -> Self {
        Self {
            read: None,
            change: None,
            create: Scopes::WRITE.into(),
            revoke: Scopes::REVOKE.into(),
            erase: Scopes::ERASE.into(),
        }
    }
}

impl Access {
    /// Checks that the claims permit the action.
    pub fn check(&self, claims: &Claims, action: Action) -> Result<(), AuthError> {
        let scope = match action {
            Action::ReadInbox => self.read.as_ref(),
            Action::ChangeInbox => self.change.as_ref(),
            Action::Create => Some(&self.create),
            Action::Revoke => Some(&self.revoke),
            Action::Erase => Some(&self.erase),
        };
        match scope {
            Some(scope) if !claims.scopes.contains(scope) => {
                Err(AuthError::ScopeMissing(scope.clone()))
            }
            _ => Ok(()),
        }
    }
}

/// Why a client is not authenticated or not permitted to do something.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The client sent no token.
    #[error("a token is needed")]
    TokenMissing,
    /// The token is malformed or not trusted.
    #[error("the token is not valid")]
    TokenInvalid,
    /// The token is trusted, but a claim is missing or cannot be used. Contains the reason.
    #[error("the token {0}")]
    ClaimInvalid(String),
    /// The token has expired.
    #[error("the token has expired")]
    TokenExpired,
    /// The token has not expired, but was revoked. A token that was issued within the leeway after a
    /// revocation counts as revoked too, because of clock differences.
    #[error(
        "the token was revoked, or issued within seconds after a revocation; sign in again in a moment"
    )]
    TokenRevoked,
    /// The token that a device sent to refresh its session belongs to another user.
    #[error("the token is of another user")]
    OtherUser,
    /// The token lacks this scope.
    #[error("the token lacks the scope {0}")]
    ScopeMissing(Arc<str>),
    /// The token cannot be checked at the moment.
    #[error("signing in is not possible at the moment")]
    Unavailable(#[source] PortError),
}

impl AuthError {
    /// The stable code for clients.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TokenMissing => "token_missing",
            Self::TokenInvalid | Self::ClaimInvalid(_) => "token_invalid",
            Self::TokenExpired => "token_expired",
            Self::TokenRevoked => "token_revoked",
            Self::OtherUser => "token_of_other_user",
            Self::ScopeMissing(_) => "scope_missing",
            Self::Unavailable(_) => "unavailable",
        }
    }
}

/// The key that verified a session's token is not accepted any more.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the key of the token is not accepted any more; sign in again")]
pub struct KeyWithdrawn;

impl From<TokenTooLong> for AuthError {
    fn from(_: TokenTooLong) -> Self {
        Self::TokenInvalid
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::claims;

    fn permitted(access: &Access, scopes: &str) -> [bool; 5] {
        let claims = Claims { scopes: Scopes::parse(scopes), ..claims("ada", 1) };
        [Action::ReadInbox, Action::ChangeInbox, Action::Create, Action::Revoke, Action::Erase]
            .map(|action| access.check(&claims, action).is_ok())
    }

    #[test]
    fn token_without_scope_permits_the_own_inbox_only() {
        let default = Access::default();
        assert_eq!(permitted(&default, ""), [true, true, false, false, false]);
        assert_eq!(permitted(&default, "notifications:write"), [true, true, true, false, false]);
        assert_eq!(permitted(&default, "tokens:revoke"), [true, true, false, true, false]);
        assert_eq!(permitted(&default, "users:erase"), [true, true, false, false, true]);
    }

    #[test]
    fn own_inbox_requires_scopes_where_configured() {
        let strict = Access {
            read: Some("inbox:read".into()),
            change: Some("inbox:change".into()),
            ..Access::default()
        };
        assert_eq!(permitted(&strict, "notifications:write"), [false, false, true, false, false]);
        assert_eq!(permitted(&strict, "inbox:read"), [true, false, false, false, false]);
        assert_eq!(
            permitted(&strict, "inbox:change inbox:read"),
            [true, true, false, false, false]
        );
    }
}
