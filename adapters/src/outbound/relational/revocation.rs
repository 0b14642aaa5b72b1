use std::time::Duration;

use belfry_application::ports::{Revocation, RevocationCursor};
use belfry_domain::UserId;

use super::{StoredInstant, Unreadable};

/// A row of `revocations`.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct RevocationRow<At> {
    user_id: String,
    issued_before: At,
    written_at: At,
}

/// What is written later may be seen earlier, by as much as a statement takes. So a reader comes back
/// to what was written shortly before the latest that it saw.
const OVERLAP: Duration = Duration::from_secs(30);

/// The revocations that these rows keep, and the mark for the next time: milliseconds since 1970, by
/// the database's clock.
pub(crate) fn revocations<At: StoredInstant>(
    rows: Vec<RevocationRow<At>>,
    mark: Option<RevocationCursor>,
) -> Result<(Vec<Revocation>, RevocationCursor), Unreadable> {
    let latest = rows.iter().map(|row| row.written_at.instant()).max();
    let reached = latest.map(|latest| latest.minus(OVERLAP).unix_millis());
    let before = mark.map_or(0, |RevocationCursor(mark)| mark);
    let revocations = rows.into_iter().map(|row| {
        let user = UserId::parse(&row.user_id).map_err(|why| Unreadable::new("a user", &why))?;
        Ok(Revocation { user, issued_before: row.issued_before.instant() })
    });
    Ok((
        revocations.collect::<Result<_, _>>()?,
        RevocationCursor(reached.map_or(before, |to| to.max(before))),
    ))
}
