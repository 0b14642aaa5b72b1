use belfry_application::access::Action;
use belfry_application::access::AuthError;
use belfry_application::ports::BearerToken;
use belfry_domain::InboxState;
use serde_json::{Value, json};

use super::credentials::resume_point;
use super::device_session::DeviceSession;
use super::parts::SocketIoParts;
use super::payload::{PageNumbers, check_keys, ids, one_id, requested_page};
use super::protocol::ClientEvent;
use super::reply::{MessageError, ReplyData};
use crate::limits::{Cost, Limit};
use crate::wire::socket::{AckShape, ClientMessage, MessageRule};
use crate::wire::{PageForm, Rfc3339, SyncForm};

impl ClientMessage {
    /// Whether its reply can contain many notifications.
    pub(super) const fn has_large_reply(self) -> bool {
        matches!(self, Self::List | Self::Sync)
    }

    /// The action that the session's token must allow.
    const fn action(self) -> Action {
        match self {
            Self::MarkRead | Self::MarkAllRead | Self::Delete => Action::ChangeInbox,
            Self::CountUnread | Self::List | Self::Sync | Self::Refresh => Action::ReadInbox,
        }
    }
}

/// Processes a device's message, if the session's claims allow it, and returns the data of the reply in the shape of
/// the rule. `None` is a message that does not exist.
pub(super) async fn process(
    parts: &SocketIoParts,
    device: &DeviceSession,
    rule: Option<MessageRule>,
    event: &ClientEvent,
) -> Result<ReplyData, MessageError> {
    let SocketIoParts { sessions, use_cases, work, .. } = parts;
    let session = &device.session;
    let action = rule.map_or(Action::ReadInbox, |rule| rule.message.action());
    sessions.authorize(session, action)?;
    let user = session.user();
    let MessageRule { message, ack, is_alias } = rule.ok_or(MessageError::UnknownEvent)?;
    let permit = work.acquire(user, Cost::REQUEST).await.map_err(|_| {
        Limit::Work.record_exceeded_by_user(user);
        MessageError::TooMuchWork
    })?;
    // Parsed only now, so that a rejected message costs little.
    let payload = event.payload().map_err(|error| MessageError::Invalid(error.to_string()))?;
    check_keys(&payload, message, user)?;
    match message {
        ClientMessage::MarkRead => {
            let ids = ids(payload)?;
            work.charge(user, Cost::of_notifications(ids.len()));
            Ok(count_and_revision(use_cases.mark_read.run(user, &ids).await?, ack))
        }
        ClientMessage::MarkAllRead => {
            Ok(count_and_revision(use_cases.mark_all_read.run(user).await?, ack))
        }
        ClientMessage::CountUnread => {
            Ok(count_and_revision(use_cases.count_unread.run(user).await?, ack))
        }
        ClientMessage::Delete => {
            let id = one_id(payload)?;
            let state = use_cases.delete.run(user, &id).await?.ok_or(MessageError::NotFound)?;
            Ok(count_and_revision(state, ack))
        }
        ClientMessage::List => {
            let numbers = if is_alias { PageNumbers::FirstPage } else { PageNumbers::Refused };
            let (filter, limit) = requested_page(payload, numbers)?;
            let page = use_cases.list.run(user, &filter, limit).await?;
            work.charge(user, Cost::of_page(&page.items));
            let page = PageForm::from(&page);
            Ok(match ack {
                AckShape::Items => ReplyData::of(&page.items),
                _ => ReplyData::of(&page),
            })
        }
        ClientMessage::Sync => {
            // A replay lasts until the device has read it, and has its own limits.
            drop(permit);
            let sync = sessions.sync(session, resume_point(&payload)).await?;
            Ok(ReplyData::of(&SyncForm::from(&sync)))
        }
        ClientMessage::Refresh => {
            let token = payload.get("token").and_then(Value::as_str);
            let token = token.or_else(|| payload.as_str()).map_or(Ok(None), BearerToken::parse);
            let expires_at = sessions.refresh(session, token.map_err(AuthError::from)?).await?;
            Ok(ReplyData::of(&json!({ "expiresAt": Rfc3339(expires_at) })))
        }
    }
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
