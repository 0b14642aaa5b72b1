use std::sync::Arc;

use belfry_application::push::ForwardedPush;
use belfry_application::use_cases::ForwardedEvent;
use belfry_domain::UserId;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tracing::debug;

use super::command::user;
use super::create::{missing_recipient, recipients};
use super::forwarded_link::without_rejected_link;
use super::invalid_message::{InvalidMessage, MAX_BODY};
use super::json_fields::JsonFields;
use super::json_object::{borrowed_form, is_object};
use super::message::{Envelope, Incoming};
use super::message_mapping::MessageMapping;
use super::pattern::Pattern;
use crate::wire::{Integer, TextOrNumber};

/// The data of a message in forward mode. If the field `notification` is not an object, the data itself is the
/// notification.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ForwardForm<'a> {
    user_id: Option<TextOrNumber>,
    #[serde(borrow)]
    notification: Option<&'a RawValue>,
    #[serde(borrow)]
    unread_count: Option<&'a RawValue>,
    #[serde(borrow)]
    count: Option<&'a RawValue>,
}

/// Decodes the events of a message in forward mode, one for each recipient. The sender's JSON stays
/// unchanged, except for a [rejected link](without_rejected_link).
pub(super) fn forwarded_events(
    envelope: &Envelope<'_>,
    mapping: &MessageMapping,
) -> Result<Vec<ForwardedEvent>, InvalidMessage> {
    let data = envelope.data;
    let ForwardForm { user_id, notification, unread_count, count } = borrowed_form(data)?;
    let notification = notification.filter(|json| is_object(json)).unwrap_or(data);
    let users = match user_id {
        Some(user_id) => vec![user(&user_id)?],
        None => users(data, notification, mapping)?,
    };
    let unread_count = match envelope.pattern {
        Pattern::UnreadCount => {
            let field = if unread_count.is_some() { "unreadCount" } else { "count" };
            let count = unread_count.or(count);
            let count = count.ok_or_else(|| InvalidMessage::field(field, "is missing"))?;
            Some(checked_count(field, count)?)
        }
        Pattern::Custom(_) => None,
        // Here the count only accompanies the event, which is delivered even if the count is invalid.
        _ => unread_count.and_then(|count| match checked_count("unreadCount", count) {
            Ok(count) => Some(count),
            Err(error) => {
                debug!(%error, "forwarding an event without its unread count");
                None
            }
        }),
    };
    let push = match &envelope.pattern {
        Pattern::Create => {
            let new = ForwardedPush::New(shared(notification));
            Some(without_rejected_link(new, &mapping.links))
        }
        Pattern::MarkRead | Pattern::MarkAllRead => Some(ForwardedPush::MarkedRead(shared(data))),
        Pattern::Delete => Some(ForwardedPush::Deleted(shared(data))),
        Pattern::UnreadCount => None,
        Pattern::Custom(event) => {
            Some(ForwardedPush::Custom { event: event.clone(), data: shared(data) })
        }
        Pattern::List | Pattern::RevokeTokens => {
            return Err(InvalidMessage::unknown(&envelope.name));
        }
    };
    let event =
        |user| ForwardedEvent { user, push: push.clone(), unread_count: unread_count.clone() };
    Ok(users.into_iter().map(event).collect())
}

/// The recipients of a message whose data has no `userId`, found by the field names of `mapping`.
fn users(
    data: &RawValue,
    notification: &RawValue,
    mapping: &MessageMapping,
) -> Result<Vec<UserId>, InvalidMessage> {
    for json in [data, notification] {
        let mut fields: JsonFields<'_> = borrowed_form(json)?;
        if let Some(users) = recipients(&mut fields, mapping)? {
            return Ok(users);
        }
    }
    Err(missing_recipient())
}

/// Converts an unread count to the form that devices expect: digits only. Accepts an integer in any notation
/// of JSON, as a number or a string (PostgreSQL drivers return counts as strings), or in an object such as
/// `{"count":3}`. `field` is the name of the field, for the error.
fn checked_count(field: &'static str, raw: &RawValue) -> Result<Arc<str>, InvalidMessage> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum CountForm {
        Plain(TextOrNumber),
        Object {
            #[serde(alias = "unreadCount")]
            count: TextOrNumber,
        },
    }
    let text = match serde_json::from_str(raw.get()) {
        Ok(CountForm::Plain(count) | CountForm::Object { count }) => Some(count.to_string()),
        Err(_) => None,
    };
    let count = text.as_deref().and_then(Integer::parse).and_then(Integer::to::<u64>);
    match count {
        Some(count) => Ok(count.to_string().into()),
        None => Err(InvalidMessage::field(field, "must be a whole number")),
    }
}

fn shared(raw: &RawValue) -> Arc<str> {
    raw.get().into()
}

/// Encodes an event for the events exchange, in NestJS's form. The sender's JSON stays unchanged.
pub(super) fn encode_forwarded(envelope: &Envelope<'_>) -> Result<Vec<u8>, InvalidMessage> {
    #[derive(Serialize)]
    struct Form<'a> {
        pattern: &'a str,
        data: &'a RawValue,
    }
    let form = Form { pattern: &envelope.name, data: envelope.data };
    let body = serde_json::to_vec(&form).map_err(|error| InvalidMessage::field("data", error))?;
    // Nodes would reject a larger message.
    if body.len() > MAX_BODY { Err(InvalidMessage::TooLarge(body.len())) } else { Ok(body) }
}

/// Decodes a message that [`encode_forwarded`] has encoded.
pub(super) fn decode_forwarded(
    message: &Incoming<'_>,
    mapping: &MessageMapping,
) -> Result<Vec<ForwardedEvent>, InvalidMessage> {
    // The pattern is in the body, so the name of the queue does not matter.
    let envelope = Envelope::open(message, "", &mapping.patterns)?;
    forwarded_events(&envelope, mapping)
}

#[cfg(test)]
mod tests;
