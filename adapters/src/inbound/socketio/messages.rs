use belfry_application::access::Action;
use belfry_application::access::AuthError;
use belfry_application::ports::BearerToken;
use serde_json::{Value, json};

use super::credentials::resume_point;
use super::device_session::DeviceSession;
use super::parts::{SocketIoParts, SocketUseCases};
use super::payload::check_keys;
use super::protocol::ClientEvent;
use super::reply::{MessageError, ReplyData};
use super::{forward_messages, inbox_messages};
use crate::limits::{Cost, Limit};
use crate::wire::socket::{ClientMessage, MessageRule};
use crate::wire::{Rfc3339, SyncForm};

impl ClientMessage {
    /// Whether the reply to this message can contain many notifications.
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

/// Processes a device's message, if the session's claims allow it, and returns the data of the reply. `rule` is the
/// meaning of the event's name: the message and the shape of its reply. It is `None` if no message has this name.
pub(super) async fn process(
    parts: &SocketIoParts,
    device: &DeviceSession,
    rule: Option<MessageRule>,
    event: &ClientEvent,
) -> Result<ReplyData, MessageError> {
    let SocketIoParts { sessions, use_cases, work, .. } = parts;
    let session = &device.session;
    // An unknown message is authorized as well, so that an expired session learns of its expiry.
    let action = rule.map_or(Action::ReadInbox, |rule| rule.message.action());
    sessions.authorize(session, action)?;
    let user = session.user();
    let rule = rule.ok_or(MessageError::UnknownEvent)?;
    let message = rule.message;
    let permit = work.acquire(user, Cost::REQUEST).await.map_err(|_| {
        Limit::Work.record_exceeded_by_user(user);
        MessageError::TooMuchWork
    })?;
    // Parsed after all checks, so that a rejected message costs little.
    let payload = event.payload().map_err(|error| MessageError::Invalid(error.to_string()))?;
    match message {
        ClientMessage::Sync => {
            check_keys(&payload, message, user)?;
            let resume_from = resume_point(&payload);
            // Released before the replay, which lasts until the device has read it and has limits of its own.
            drop((permit, payload));
            let sync = sessions.sync(session, resume_from).await?;
            Ok(ReplyData::of(&SyncForm::from(&sync)))
        }
        ClientMessage::Refresh => {
            check_keys(&payload, message, user)?;
            // `{token}` or a bare token.
            let token = payload.get("token").and_then(Value::as_str);
            let token = token.or_else(|| payload.as_str()).map_or(Ok(None), BearerToken::parse);
            let expires_at = sessions.refresh(session, token.map_err(AuthError::from)?).await?;
            Ok(ReplyData::of(&json!({ "expiresAt": Rfc3339(expires_at) })))
        }
        message => match use_cases {
            SocketUseCases::Store(inbox) => {
                inbox_messages::process(inbox, work, user, rule, payload).await
            }
            SocketUseCases::Forward(request_change) => {
                let request_change = request_change.as_ref().ok_or(MessageError::InboxNotKept)?;
                forward_messages::process(request_change, work, user, message, payload).await
            }
        },
    }
}
