//! Messages about the inbox in forward mode: changes are passed on to the service that keeps the inboxes.

use belfry_application::ports::RequestedChange;
use belfry_application::use_cases::RequestChange;
use belfry_domain::UserId;
use serde_json::{Value, json};

use super::payload::{check_keys, ids, one_id};
use super::reply::{MessageError, ReplyData};
use crate::limits::{Cost, UserWork};
use crate::wire::socket::ClientMessage;

/// Passes a change on to the service, and refuses every other message. The reply to a change has no data, whatever
/// the shape of the reply: only the service knows the unread count, and it sends the count to all devices of the user.
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
        // The payload is not checked: this message is refused with any payload.
        _ => return Err(MessageError::InboxNotKept),
    };
    request_change.run(user, &change).await?;
    Ok(ReplyData::of(&json!({})))
}
