use std::time::Duration;

use belfry_application::ports::{Revocation, RevocationCursor};

use super::stored_value::{InvalidStoredValue, user_id};
use super::timestamp::StoredTimestamp;

/// A row of `revocations`.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct RevocationRow<At> {
    user_id: String,
    issued_before: At,
    written_at: At,
}

/// How far a mark stays behind the latest row. A row's `written_at` is set before its commit, so a
/// row may become visible after rows with a later `written_at`. The delay is at most a statement's
/// duration.
const OVERLAP: Duration = Duration::from_secs(30);

/// The revocations in these rows, and the mark for the next poll: milliseconds since the Unix
/// epoch, by the database's clock. The mark never goes back.
pub(crate) fn revocations<At: StoredTimestamp>(
    rows: Vec<RevocationRow<At>>,
    mark: Option<RevocationCursor>,
) -> Result<(Vec<Revocation>, RevocationCursor), InvalidStoredValue> {
    let latest = rows.iter().map(|row| row.written_at.to_domain()).max();
    let reached = latest.map(|latest| latest.minus(OVERLAP).unix_millis());
    let before = mark.map_or(0, |RevocationCursor(mark)| mark);
    let revocations = rows.into_iter().map(|row| {
        let user = user_id(&row.user_id)?;
        Ok(Revocation { user, issued_before: row.issued_before.to_domain() })
    });
    Ok((
        revocations.collect::<Result<_, _>>()?,
        RevocationCursor(reached.map_or(before, |to| to.max(before))),
    ))
}
