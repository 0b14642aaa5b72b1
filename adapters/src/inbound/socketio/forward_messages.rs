//! Messages about the inbox in forward mode: changes are passed on to the service that keeps the inboxes.

use belfry_application::ports::RequestedChange;
use belfry_application::use_cases::RequestChange;
use belfry_domain::UserId;
use serde_json::{Value, json};

use super::payload::{check_keys, ids, one_id};
use super::reply::{MessageError, ReplyData};
use crate::limits::{Cost, UserWork};
use crate::wire::socket::ClientMessage;

/// Passes a change on, and refuses everything else. The reply to a change has no data in any shape: only the service
/// knows the unread count, and sends it to all devices of the user.
pub(super) async fn process(
    request_change: &RequestChange,
    work: &UserWork,
    user: &UserId,
    message: ClientMessage,
    payload: Value,
) -> Result<ReplyData, MessageError> {
    let change = match message {
        ClientMessage::MarkRead => {
            check_keys(&payload, message, user)?;
            let ids = ids(payload)?;
            work.charge(user, Cost::of_notifications(ids.len()));
            RequestedChange::MarkRead(ids)
        }
        ClientMessage::MarkAllRead => {
            check_keys(&payload, message, user)?;
            RequestedChange::MarkAllRead
        }
        ClientMessage::Delete => {
            check_keys(&payload, message, user)?;
            RequestedChange::Delete(one_id(payload)?)
        }
        // Refused whatever the payload: a client cannot do better with another one.
        _ => return Err(MessageError::InboxNotKept),
    };
    request_change.run(user, &change).await?;
    Ok(ReplyData::of(&json!({})))
}
