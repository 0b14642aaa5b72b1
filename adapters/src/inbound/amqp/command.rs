use belfry_application::use_cases::Command;
use belfry_domain::{NotificationId, Timestamp, UserId};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::message::{Envelope, Pattern, Unreadable};
use crate::wire::{DraftForm, Rfc3339, TextOrNumber};

/// The most notifications that one message marks as read.
const MAX_IDS: usize = 1_000;

/// What the message asks to be done with an inbox.
pub(super) fn command(
    envelope: &Envelope<'_>,
    new_id: impl FnOnce() -> NotificationId,
    now: Timestamp,
) -> Result<Command, Unreadable> {
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
            Err(Unreadable::UnknownPattern("notification.unread_count".to_owned()))
        }
    }
}

/// The notification may be the data itself, or stand in it; its recipient may stand beside it then.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wrapping<'a> {
    #[serde(borrow)]
    notification: Option<&'a RawValue>,
    #[serde(borrow)]
    user_id: Option<&'a RawValue>,
}

/// The notification within that data, or else the data.
fn notification_in(data: &RawValue) -> Result<&RawValue, Unreadable> {
    let wrapping: Wrapping<'_> = borrowed(data)?;
    Ok(wrapping.notification.filter(|inner| is_object(inner)).unwrap_or(data))
}

fn create(
    envelope: &Envelope<'_>,
    new_id: impl FnOnce() -> NotificationId,
    now: Timestamp,
) -> Result<Command, Unreadable> {
    let mut draft: DraftForm = form(notification_in(envelope.data)?)?;
    // As in forward mode, `data.userId` says to whom, also where the notification says something else.
    if let Some(recipient) = recipient(envelope.data)? {
        draft.user_id = Some(recipient);
    }
    // A message that comes again shall not make another notification. Where the sender has no name for
    // it, the message's own has to do.
    if draft.id.is_none() && draft.dedupe_key.is_none() {
        let named = envelope.named.as_ref();
        draft.dedupe_key = named.map(|id| TextOrNumber::Text(id.to_string()));
    }
    Ok(Command::Create(Box::new(draft.read(None, new_id, now)?)))
}

/// Whom that data names as recipient.
pub(super) fn recipient(data: &RawValue) -> Result<Option<TextOrNumber>, Unreadable> {
    let wrapping: Wrapping<'_> = borrowed(data)?;
    let read = |raw: &RawValue| {
        serde_json::from_str(raw.get())
            .map_err(|_| Unreadable::field("userId", "must be a text or a whole number"))
    };
    wrapping.user_id.map(read).transpose()
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

fn mark_read(data: &RawValue) -> Result<Command, Unreadable> {
    let ReadForm { user_id, id, notification_id, ids, all } = form(data)?;
    let user = user(user_id)?;
    if all == Some(true) {
        return Ok(Command::MarkAllRead { user });
    }
    let ids = ids
        .or_else(|| Some(vec![id.or(notification_id)?]))
        .ok_or_else(|| Unreadable::field("ids", "is missing, and so are id and all"))?;
    if ids.is_empty() || ids.len() > MAX_IDS {
        return Err(Unreadable::field("ids", format!("must hold 1 to {MAX_IDS} ids")));
    }
    let ids = ids.iter().map(|raw| NotificationId::parse(&raw.to_string()));
    let ids = ids.collect::<Result<_, _>>().map_err(|error| Unreadable::field("ids", error))?;
    Ok(Command::MarkRead { user, ids })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RevocationForm {
    user_id: Option<TextOrNumber>,
    issued_before: Option<Rfc3339>,
}

/// Whose tokens hold no more, and before which instant they were issued if that is not now.
pub(super) fn revocation(data: &RawValue) -> Result<(UserId, Option<Timestamp>), Unreadable> {
    let RevocationForm { user_id, issued_before } = form(data)?;
    Ok((user(user_id)?, issued_before.map(|Rfc3339(instant)| instant)))
}

/// A user id as it stands in a field `userId`.
pub(super) fn user(raw: Option<TextOrNumber>) -> Result<UserId, Unreadable> {
    let raw = raw.ok_or_else(|| Unreadable::field("userId", "is missing"))?;
    UserId::parse(&raw.to_string()).map_err(|error| Unreadable::field("userId", error))
}

pub(super) fn is_object(json: &RawValue) -> bool {
    json.get().starts_with('{')
}

/// Reads a form; where that fails, once more, more slowly, to say which field it was.
fn form<T: DeserializeOwned>(data: &RawValue) -> Result<T, Unreadable> {
    must_be_object(data)?;
    serde_json::from_str(data.get()).or_else(|_| {
        let json = &mut serde_json::Deserializer::from_str(data.get());
        serde_path_to_error::deserialize(json).map_err(|error| Unreadable::field("data", error))
    })
}

pub(super) fn borrowed<'a, T: Deserialize<'a>>(data: &'a RawValue) -> Result<T, Unreadable> {
    must_be_object(data)?;
    serde_json::from_str(data.get()).map_err(|error| Unreadable::field("data", error))
}

fn must_be_object(data: &RawValue) -> Result<(), Unreadable> {
    if is_object(data) { Ok(()) } else { Err(Unreadable::field("data", "must be an object")) }
}
