use belfry_application::use_cases::Command;
use belfry_domain::{NotificationId, Timestamp, UserId};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::message::{Envelope, InvalidMessage, Pattern};
use crate::wire::{DraftForm, Rfc3339, TextOrNumber};

/// How many notifications one message may mark as read.
const MAX_IDS: usize = 1_000;

/// Decodes the command of a message in store mode.
pub(super) fn decode_command(
    envelope: &Envelope<'_>,
    new_id: impl FnOnce() -> NotificationId,
    now: Timestamp,
) -> Result<Command, InvalidMessage> {
    match envelope.pattern {
        Pattern::Create => create(envelope, new_id, now),
        Pattern::MarkRead => mark_read(envelope.data),
        Pattern::MarkAllRead => {
            let ReadForm { user_id, .. } = form(envelope.data)?;
            Ok(Command::MarkAllRead { user: user(user_id)? })
        }
        Pattern::RevokeTokens => {
            let (user, issued_before) = revocation(envelope.data)?;
            Ok(Command::RevokeTokens { user, issued_before })
        }
        Pattern::UnreadCount => {
            Err(InvalidMessage::UnknownPattern("notification.unread_count".to_owned()))
        }
    }
}

/// Data of either form: the notification itself, or an object with `notification` and `userId`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrapperForm<'a> {
    #[serde(borrow)]
    notification: Option<&'a RawValue>,
    #[serde(borrow)]
    user_id: Option<&'a RawValue>,
}

/// The field `notification` of the data if it is an object, or else the data itself.
fn notification_in(data: &RawValue) -> Result<&RawValue, InvalidMessage> {
    let wrapper: WrapperForm<'_> = borrowed(data)?;
    Ok(wrapper.notification.filter(|inner| is_object(inner)).unwrap_or(data))
}

fn create(
    envelope: &Envelope<'_>,
    new_id: impl FnOnce() -> NotificationId,
    now: Timestamp,
) -> Result<Command, InvalidMessage> {
    let mut draft: DraftForm = form(notification_in(envelope.data)?)?;
    // As in forward mode, `data.userId` takes precedence over `data.notification.userId`.
    if let Some(recipient) = recipient(envelope.data)? {
        draft.user_id = Some(recipient);
    }
    // A redelivered message must not create a second notification. If the data has neither an id nor a
    // dedupe key, the `message_id` is the key.
    if draft.id.is_none() && draft.dedupe_key.is_none() {
        let id = envelope.message_id.as_ref();
        draft.dedupe_key = id.map(|id| TextOrNumber::Text(id.to_string()));
    }
    // A notification that expired while its message waited is valid; it is dropped later. Without a creation
    // time, it was created before it expired.
    let before_expiry = draft.expires_at.map(|Rfc3339(end)| end.unix_millis().saturating_sub(1));
    let now = before_expiry.map_or(now, |latest| now.min(Timestamp::from_unix_millis(latest)));
    Ok(Command::Create(Box::new(draft.read(None, new_id, now)?)))
}

/// The field `userId` of an object, if there is one.
pub(super) fn recipient(data: &RawValue) -> Result<Option<TextOrNumber>, InvalidMessage> {
    let wrapper: WrapperForm<'_> = borrowed(data)?;
    let parse = |raw: &RawValue| {
        serde_json::from_str(raw.get())
            .map_err(|_| InvalidMessage::field("userId", "must be a string or a whole number"))
    };
    wrapper.user_id.map(parse).transpose()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReadForm {
    user_id: Option<TextOrNumber>,
    id: Option<TextOrNumber>,
    notification_id: Option<TextOrNumber>,
    #[serde(alias = "notificationIds")]
    ids: Option<Vec<TextOrNumber>>,
    all: Option<bool>,
}

fn mark_read(data: &RawValue) -> Result<Command, InvalidMessage> {
    let ReadForm { user_id, id, notification_id, ids, all } = form(data)?;
    let user = user(user_id)?;
    if all == Some(true) {
        return Ok(Command::MarkAllRead { user });
    }
    let ids = ids
        .or_else(|| Some(vec![id.or(notification_id)?]))
        .ok_or_else(|| InvalidMessage::field("ids", "is missing, as are id and all"))?;
    if ids.is_empty() || ids.len() > MAX_IDS {
        return Err(InvalidMessage::field("ids", format!("must contain 1 to {MAX_IDS} ids")));
    }
    let ids = ids.iter().map(|raw| NotificationId::parse(&raw.to_string()));
    let ids = ids.collect::<Result<_, _>>().map_err(|error| InvalidMessage::field("ids", error))?;
    Ok(Command::MarkRead { user, ids })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RevocationForm {
    user_id: Option<TextOrNumber>,
    issued_before: Option<Rfc3339>,
}

/// The user whose tokens are revoked, and the instant before which the revoked tokens were issued: `None`
/// means now.
pub(super) fn revocation(data: &RawValue) -> Result<(UserId, Option<Timestamp>), InvalidMessage> {
    let RevocationForm { user_id, issued_before } = form(data)?;
    Ok((user(user_id)?, issued_before.map(|Rfc3339(instant)| instant)))
}

/// Parses the value of a field `userId`.
pub(super) fn user(raw: Option<TextOrNumber>) -> Result<UserId, InvalidMessage> {
    let raw = raw.ok_or_else(|| InvalidMessage::field("userId", "is missing"))?;
    UserId::parse(&raw.to_string()).map_err(|error| InvalidMessage::field("userId", error))
}

/// Whether a JSON value is an object. A `RawValue` has no leading whitespace.
pub(super) fn is_object(json: &RawValue) -> bool {
    json.get().starts_with('{')
}

/// Parses a form. After a failure, parses again with a slower deserializer that names the field.
fn form<T: DeserializeOwned>(data: &RawValue) -> Result<T, InvalidMessage> {
    must_be_object(data)?;
    serde_json::from_str(data.get()).or_else(|_| {
        let json = &mut serde_json::Deserializer::from_str(data.get());
        serde_path_to_error::deserialize(json).map_err(|error| InvalidMessage::field("data", error))
    })
}

/// Parses a form that borrows from `data`. The error of a failure does not name the field.
pub(super) fn borrowed<'a, T: Deserialize<'a>>(data: &'a RawValue) -> Result<T, InvalidMessage> {
    must_be_object(data)?;
    serde_json::from_str(data.get()).map_err(|error| InvalidMessage::field("data", error))
}

fn must_be_object(data: &RawValue) -> Result<(), InvalidMessage> {
    if is_object(data) { Ok(()) } else { Err(InvalidMessage::field("data", "must be an object")) }
}
