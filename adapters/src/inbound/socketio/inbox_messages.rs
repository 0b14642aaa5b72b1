//! Messages about the inbox in store mode.

use belfry_domain::{InboxState, UserId};
use serde_json::{Value, json};

use super::parts::InboxUseCases;
use super::payload::{PageNumbers, check_keys, ids, one_id, requested_page};
use super::reply::{MessageError, ReplyData};
use crate::limits::{Cost, UserWork};
use crate::wire::PageForm;
use crate::wire::socket::{AckShape, ClientMessage, MessageRule};

/// Processes a message and returns the data of the reply, in the shape `ack` of the message's rule.
pub(super) async fn process(
    use_cases: &InboxUseCases,
    work: &UserWork,
    user: &UserId,
    MessageRule { message, ack, is_alias }: MessageRule,
    payload: Value,
) -> Result<ReplyData, MessageError> {
    check_keys(&payload, message, user)?;
    let state = match message {
        ClientMessage::MarkRead => {
            let ids = ids(payload)?;
            work.charge(user, Cost::of_notifications(ids.len()));
            use_cases.mark_read.run(user, &ids).await?
        }
        ClientMessage::MarkAllRead => use_cases.mark_all_read.run(user).await?,
        ClientMessage::CountUnread => use_cases.count_unread.run(user).await?,
        ClientMessage::Delete => {
            let id = one_id(payload)?;
            use_cases.delete.run(user, &id).await?.ok_or(MessageError::NotFound)?
        }
        ClientMessage::List => {
            // Aliases are for clients of other servers, which may number pages.
            let numbers = if is_alias { PageNumbers::FirstPage } else { PageNumbers::Refused };
            let (filter, limit) = requested_page(payload, numbers)?;
            let page = use_cases.list.run(user, &filter, limit).await?;
            work.charge(user, Cost::of_page(&page.items));
            let page = PageForm::from(&page);
            return Ok(match ack {
                AckShape::Items => ReplyData::of(&page.items),
                _ => ReplyData::of(&page),
            });
        }
        // `messages::process` handles these two: they concern the session and not the inbox.
        ClientMessage::Sync | ClientMessage::Refresh => return Err(MessageError::UnknownEvent),
    };
    Ok(count_and_revision(state, ack))
}

fn count_and_revision(state: InboxState, ack: AckShape) -> ReplyData {
    let (count, revision) = (state.unread.get(), state.revision.get());
    match ack {
        AckShape::Number => ReplyData::of(&count),
        AckShape::UnreadCount => {
            ReplyData::of(&json!({ "unreadCount": count, "revision": revision }))
        }
        _ => ReplyData::of(&json!({ "count": count, "revision": revision })),
    }
}
