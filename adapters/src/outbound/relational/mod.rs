//! What the stores that speak SQL have in common: which instants they keep, how a row becomes a
//! notification, and what drafts come to in inboxes whose state is known. No SQL here: each store
//! says it in its own dialect.

mod call;
mod due;
mod entry;
mod failure;
mod history;
mod instant;
mod intake;
mod number;
mod page;
mod revocation;
mod row;

pub(super) use call::Call;
pub(super) use due::{DueRow, due_by_inbox};
pub(super) use entry::EntryRow;
pub(super) use failure::concerns_the_values;
pub(super) use history::{ChangedRow, HistoryRow, changes, history};
pub(super) use instant::{InstantOutOfRange, storable};
pub(super) use intake::{Intake, StandingRow, Taken};
pub(super) use number::{clamped, count, whole};
pub(super) use page::{SizedRow, page};
pub(super) use revocation::{RevocationRow, revocations};
pub(super) use row::{NotificationRow, StoredInstant, Unreadable, inbox_state};
