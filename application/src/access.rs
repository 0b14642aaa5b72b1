//! What a token must allow for what is asked.

use std::sync::Arc;

use crate::ports::{Claims, Scopes};
use crate::use_cases::Refusal;

/// What somebody wants to do, as far as it takes a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// See their own inbox, and hear what happens in it.
    ReadInbox,
    /// Mark in it as read, and delete.
    ChangeInbox,
    /// Write notifications for any user.
    Create,
    /// Revoke any user's tokens.
    Revoke,
}

/// Which scope each action takes; `None` for one that every token of the user allows.
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
}

impl Default for Access {
    /// Users have their inbox to themselves; what concerns others takes a scope.
    fn default() -> Self {
        Self {
            read: None,
            change: None,
            create: Scopes::WRITE.into(),
            revoke: Scopes::REVOKE.into(),
        }
    }
}

impl Access {
    /// Whether these claims allow it.
    pub fn check(&self, claims: &Claims, action: Action) -> Result<(), Refusal> {
        let scope = match action {
            Action::ReadInbox => self.read.as_ref(),
            Action::ChangeInbox => self.change.as_ref(),
            Action::Create => Some(&self.create),
            Action::Revoke => Some(&self.revoke),
        };
        match scope {
            Some(scope) if !claims.scopes.contain(scope) => {
                Err(Refusal::ScopeMissing(scope.clone()))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::claims;

    fn may(access: &Access, scopes: &str) -> [bool; 4] {
        let claims = Claims { scopes: Scopes::parse(scopes), ..claims("ada", 1) };
        [Action::ReadInbox, Action::ChangeInbox, Action::Create, Action::Revoke]
            .map(|action| access.check(&claims, action).is_ok())
    }

    #[test]
    fn users_have_their_inbox_and_nothing_else_without_a_scope() {
        let usual = Access::default();
        assert_eq!(may(&usual, ""), [true, true, false, false]);
        assert_eq!(may(&usual, "notifications:write"), [true, true, true, false]);
        assert_eq!(may(&usual, "tokens:revoke"), [true, true, false, true]);
    }

    #[test]
    fn an_inbox_takes_scopes_where_that_is_set() {
        let strict = Access {
            read: Some("inbox:read".into()),
            change: Some("inbox:change".into()),
            ..Access::default()
        };
        assert_eq!(may(&strict, "notifications:write"), [false, false, true, false]);
        assert_eq!(may(&strict, "inbox:read"), [true, false, false, false]);
        assert_eq!(may(&strict, "inbox:change inbox:read"), [true, true, false, false]);
    }
}
