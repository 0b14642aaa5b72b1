use belfry_application::ports::{Revocation, RevocationCursor, TokenOwner};

use super::stored_value::{InvalidStoredValue, user_id};
use super::timestamp::StoredTimestamp;

/// A row that [`REVOCATIONS_AFTER`](super::statements::REVOCATIONS_AFTER) returns: a revocation, or
/// without a user the state of all.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct RevocationRow<At> {
    /// Of the state: the number of the latest revocation.
    number: i64,
    user_id: Option<String>,
    issued_before: Option<At>,
}

/// The revocations after a number, of one snapshot.
pub(crate) struct RevocationRows<At>(Vec<RevocationRow<At>>);

impl<At: StoredTimestamp> RevocationRows<At> {
    /// Before all numbers.
    pub(crate) const START: i64 = -1;

    pub(crate) fn new(rows: Vec<RevocationRow<At>>) -> Self {
        Self(rows)
    }

    /// The number of the latest revocation. A smaller one than a reader has seen shows that the
    /// database was restored, or that a standby without the latest commits has taken over.
    pub(crate) fn last_number(&self) -> Result<i64, InvalidStoredValue> {
        let state = self.0.iter().find(|row| row.user_id.is_none());
        state
            .map(|row| row.number)
            .ok_or_else(|| InvalidStoredValue::new("revocation state", &"it is missing"))
    }

    /// The revocations, and the cursor for the next read.
    pub(crate) fn decode(self) -> Result<(Vec<Revocation>, RevocationCursor), InvalidStoredValue> {
        let cursor = RevocationCursor(self.last_number()?);
        let mut revocations = Vec::with_capacity(self.0.len());
        for RevocationRow { user_id: user, issued_before, .. } in self.0 {
            // Without an instant it is the state, and there is no revocation for everyone.
            let Some(issued_before) = issued_before else { continue };
            let owner = match user {
                Some(user) => TokenOwner::User(user_id(&user)?),
                None => TokenOwner::Everyone,
            };
            revocations.push(Revocation { owner, issued_before: issued_before.to_domain() });
        }
        Ok((revocations, cursor))
    }
}
