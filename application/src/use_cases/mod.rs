//! The use cases. Each is a struct that holds the ports it needs; most have one method, `run`.

mod apply_retention;
mod catch_up;
mod count_unread;
mod create_notification;
mod delete_notification;
mod deliver_event;
mod erase_user;
mod forward_event;
mod get_notification;
mod handle_commands;
mod list_inbox;
mod mark_all_read;
mod mark_read;
mod relay_outbox;
mod request_change;
mod revoke_tokens;
mod sign_in;

pub use apply_retention::{ApplyRetention, RetentionPolicy};
pub use catch_up::{CatchUp, CatchUpPlan, ReplayPage, ResumePoint};
pub use count_unread::CountUnread;
pub use create_notification::CreateNotification;
pub use delete_notification::DeleteNotification;
pub use deliver_event::DeliverEvent;
pub use erase_user::EraseUser;
pub use forward_event::{ForwardEvent, ForwardedEvent};
pub use get_notification::GetNotification;
pub use handle_commands::{Command, CommandError, HandleCommands};
pub use list_inbox::{InboxPage, ListInbox};
pub use mark_all_read::MarkAllRead;
pub use mark_read::MarkRead;
pub use relay_outbox::{RelayOutbox, RelaySettings};
pub use request_change::RequestChange;
pub use revoke_tokens::RevokeTokens;
pub use sign_in::SignIn;
