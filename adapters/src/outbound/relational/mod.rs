//! Code that the SQL stores share: the statements that read the same in every dialect, the
//! conversion between rows and domain values, and the plan of a create.

mod create_plan;
mod create_write;
mod due;
mod edit;
mod erasure;
mod failure;
mod group_commit;
mod health;
mod history;
mod notification_row;
mod number;
mod outbox_row;
mod page;
mod revocation;
mod schema;
pub(super) mod statements;
mod stored_value;
mod timestamp;
mod wakeup;

pub(super) use create_plan::{CreatePlan, CreatePlanner, DuplicateRow};
pub(super) use create_write::{CreateWrite, per_draft, receipts};
pub(super) use due::{DueRow, due_by_inbox};
pub(super) use edit::{Edit, EditWrite, without};
pub(super) use erasure::{EventRow, erased_event, events_about};
pub(super) use failure::SqlFailure;
pub(super) use group_commit::{GroupCommit, GroupError, GroupWriter, GroupedWrite, only_outcome};
pub use health::NotReady;
pub(super) use health::{Fault, FaultRecord, reason};
pub(super) use history::{ChangedRow, HistoryRow, changes, history};
pub(super) use notification_row::{NotificationRow, notifications};
pub(super) use number::{clamped, one_more, row_count};
pub(super) use outbox_row::{BacklogRow, OutboxRow, UnreadableEntry, parse_entries};
pub(super) use page::{SizedRow, notification_page, page};
pub(super) use revocation::RevocationRows;
pub(super) use schema::is_migrated;
pub(super) use stored_value::{epoch, inbox_state, non_negative};
pub(super) use timestamp::StoredTimestamp;
pub(super) use wakeup::Wakeup;
