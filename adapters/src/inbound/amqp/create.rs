//! Reads a notification from the message of another service.

use std::borrow::Cow;

use belfry_domain::{
    Data, Draft, InvalidTitle, Link, Message, NotificationId, NotificationKind, Priority,
    Timestamp, Title, UserId,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::invalid_message::InvalidMessage;
use super::json_fields::JsonFields;
use super::json_object;
use super::lenient_time::lenient_time;
use super::message_mapping::MessageMapping;
use crate::wire::{TextOrNumber, check_depth};

/// How many recipients one message may have.
const MAX_RECIPIENTS: usize = 1_000;

/// The field of `data` with the names of the fields that were omitted; see [`with_unused_fields`].
const OMITTED: &str = "_omitted";

/// A notification in a message.
pub(super) struct SentNotification {
    /// The notification for the first recipient.
    pub(super) draft: Draft,
    /// All recipients; at least one.
    pub(super) recipients: Vec<UserId>,
    /// Whether the recipients have read it already, according to the sender.
    pub(super) is_read: bool,
}

/// Reads the notification of a message. The data of the message is the notification, or contains it in the field
/// `notification`.
///
/// An invalid time, type or priority counts as absent and does not make the message invalid. Unused fields
/// are kept in the `data` of the notification.
pub(super) fn sent_notification(
    data: &RawValue,
    mapping: &MessageMapping,
    message_id: Option<&NotificationId>,
    new_id: impl FnOnce() -> NotificationId,
    now: Timestamp,
) -> Result<SentNotification, InvalidMessage> {
    let mut outer: JsonFields<'_> = json_object::borrowed_form(data)?;
    let inner = outer.take_named(&["notification"], |json| serde_json::from_str(json.get()).ok());
    let is_wrapped = inner.is_some();
    let mut inner: JsonFields<'_> = inner.unwrap_or_default();

    let mut recipients = recipients(&mut outer, mapping)?;
    if is_wrapped {
        let inner_recipients = self::recipients(&mut inner, mapping)?;
        recipients = recipients.or(inner_recipients);
    }
    let recipients = recipients.ok_or_else(missing_recipient)?;
    // The store counts by itself.
    outer.ignore(&["unreadCount", "count"]);
    let fields = if is_wrapped { &mut inner } else { &mut outer };
    let is_read = is_read(fields);
    let mut reader = DraftReader { fields, mapping, message_id, is_read };
    let mut draft = reader.draft(recipients[0].clone(), new_id, now)?;
    let unused = inner.unused().chain(outer.unused()).collect();
    draft.data = with_unused_fields(draft.data.take(), unused, mapping)?;
    let draft = draft.check().map_err(|error| InvalidMessage::field("expiresAt", error))?;
    Ok(SentNotification { draft, recipients, is_read })
}

/// The users in the first recipient field that contains any, without repetitions. `None` if no field contains
/// users.
pub(super) fn recipients(
    fields: &mut JsonFields<'_>,
    mapping: &MessageMapping,
) -> Result<Option<Vec<UserId>>, InvalidMessage> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        One(TextOrNumber),
        Many(Vec<TextOrNumber>),
    }
    let read = |json: &RawValue| match serde_json::from_str(json.get()).ok()? {
        Form::One(one) => Some(vec![one]),
        Form::Many(many) => Some(many).filter(|many| !many.is_empty()),
    };
    let Some(raw) = fields.take_first(&mapping.recipient, read) else { return Ok(None) };
    if raw.len() > MAX_RECIPIENTS {
        let problem = format!("must contain at most {MAX_RECIPIENTS} users");
        return Err(InvalidMessage::field("userIds", problem));
    }
    let mut users = Vec::with_capacity(raw.len());
    for raw in raw {
        let user = UserId::parse_addressable(&raw.to_string());
        let user = user.map_err(|error| InvalidMessage::field("userId", error))?;
        if !users.contains(&user) {
            users.push(user);
        }
    }
    Ok(Some(users))
}

pub(super) fn missing_recipient() -> InvalidMessage {
    InvalidMessage::field(
        "userId",
        "is missing; amqp.ingest.fields.recipient can name another field",
    )
}

/// Whether the notification has `isRead: true`, `read: true`, or a time in `readAt`.
fn is_read(fields: &mut JsonFields<'_>) -> bool {
    let flags = ["isRead", "is_read", "read"];
    let flag = fields.take_named(&flags, |json| serde_json::from_str(json.get()).ok());
    let time = fields.take_named(&["readAt", "read_at"], lenient_time);
    flag.unwrap_or(false) || time.is_some()
}

/// Reads a draft from the fields of a notification.
struct DraftReader<'r, 'a> {
    fields: &'r mut JsonFields<'a>,
    mapping: &'r MessageMapping,
    message_id: Option<&'r NotificationId>,
    is_read: bool,
}

impl DraftReader<'_, '_> {
    fn draft(
        &mut self,
        user: UserId,
        new_id: impl FnOnce() -> NotificationId,
        now: Timestamp,
    ) -> Result<Draft, InvalidMessage> {
        let mapping = self.mapping;
        let id = parsed_id("id", self.fields.take_first(&mapping.id, Some))?;
        let dedupe_key = self.fields.take_named(&["dedupeKey"], Some);
        let dedupe_key = parsed_id("dedupeKey", dedupe_key)?;
        // A redelivered message must not create a second notification. If the data has neither an id nor a
        // dedupe key, the `message_id` is the key.
        let dedupe_key = dedupe_key.or_else(|| self.message_id.cloned().filter(|_| id.is_none()));
        // The command that marks the notification as read needs the same id at each redelivery.
        let id = id.or_else(|| dedupe_key.clone().filter(|_| self.is_read));
        let expires_at = self.fields.take_first(&mapping.expires_at, lenient_time);
        // A notification that expired while its message waited is valid, and is dropped later. A draft must
        // be created before it expires, so if there is no creation time, it is at most one millisecond before
        // the expiry.
        let before_expiry =
            expires_at.map(|end| Timestamp::from_unix_millis(end.unix_millis().saturating_sub(1)));
        let created_at = self.fields.take_first(&mapping.created_at, lenient_time);
        let kind = self.kind();
        let (title, message) = self.texts(kind.as_ref())?;
        Ok(Draft {
            id: id.unwrap_or_else(new_id),
            user,
            kind: kind.unwrap_or_default(),
            title,
            message,
            data: self.data()?,
            link: self.link()?,
            priority: self.priority(),
            dedupe_key,
            created_at: created_at
                .unwrap_or_else(|| before_expiry.map_or(now, |latest| now.min(latest))),
            expires_at,
        })
    }

    /// The type. If it is invalid, whitespace in it is replaced with `_`. `None` if it is still invalid.
    fn kind(&mut self) -> Option<NotificationKind> {
        self.fields.take_first(&self.mapping.kind, |json| {
            let raw = serde_json::from_str::<TextOrNumber>(json.get()).ok()?.to_string();
            NotificationKind::parse(&raw).ok().or_else(|| {
                let words: Vec<_> = raw.split_whitespace().collect();
                NotificationKind::parse(&words.join("_")).ok()
            })
        })
    }

    /// The title and the message. If the title is missing, the first line of the message becomes the title,
    /// or the type if the message is missing, too. If the whole message has become the title, the message is
    /// empty.
    fn texts(
        &mut self,
        kind: Option<&NotificationKind>,
    ) -> Result<(Title, Message), InvalidMessage> {
        let title = self.fields.take_first(&self.mapping.title, non_blank);
        let message = self.fields.take_first(&self.mapping.message, non_blank);
        let message_text = message.as_deref().unwrap_or_default();
        let (title, message) = match (&title, kind) {
            (Some(title), _) => (title.as_str(), message_text),
            (None, _) if message.is_some() => {
                let first_line = message_text.trim().lines().next().unwrap_or_default();
                let is_whole_message = first_line == message_text.trim()
                    && first_line.chars().count() <= Title::MAX_CHARS;
                return Ok((
                    parse_title(&shortened(first_line, Title::MAX_CHARS))?,
                    self.message(if is_whole_message { "" } else { message_text })?,
                ));
            }
            (None, Some(kind)) => (kind.as_str(), ""),
            (None, None) => {
                let problem = "is missing, as are message and type";
                return Err(InvalidMessage::field("title", problem));
            }
        };
        let title = match Title::parse(title) {
            Err(InvalidTitle::TooLong(_)) if self.mapping.cut_long_texts => {
                parse_title(&shortened(title.trim(), Title::MAX_CHARS))?
            }
            parsed => parsed.map_err(|error| InvalidMessage::field("title", error))?,
        };
        Ok((title, self.message(message)?))
    }

    /// Parses the message. Cuts it first if it is too long and long texts are cut.
    fn message(&self, text: &str) -> Result<Message, InvalidMessage> {
        let text = if self.mapping.cut_long_texts {
            shortened(text, Message::MAX_CHARS)
        } else {
            text.into()
        };
        Message::parse(&text).map_err(|error| InvalidMessage::field("message", error))
    }

    /// The data: an object, or a string that contains the JSON of an object. Any other value, such as an
    /// array, becomes `{"value":…}`.
    fn data(&mut self) -> Result<Option<Data>, InvalidMessage> {
        let read = |json: &RawValue| {
            let string =
                json.get().starts_with('"').then(|| serde_json::from_str::<String>(json.get()));
            let string = string.and_then(Result::ok);
            match string.as_deref().map(serde_json::from_str::<&RawValue>) {
                Some(Ok(object)) if json_object::is_object(object) => Some(object.get().to_owned()),
                _ if json_object::is_object(json) => Some(json.get().to_owned()),
                // PHP encodes an empty object as an array.
                _ if json.get() == "[]" => Some("{}".to_owned()),
                _ if json.get() == "\"\"" => None,
                _ => Some(format!("{{\"value\":{}}}", json.get())),
            }
        };
        let Some(data) = self.fields.take_first(&self.mapping.data, read) else { return Ok(None) };
        checked_data(data).map(Some)
    }

    fn link(&mut self) -> Result<Option<Link>, InvalidMessage> {
        let Some(raw) = self.fields.take_first(&self.mapping.link, non_blank) else {
            return Ok(None);
        };
        let link = Link::parse(raw.trim()).map_err(|error| InvalidMessage::field("link", error))?;
        let allowed = self.mapping.links.check(&link);
        allowed.map_err(|error| InvalidMessage::field("link", error))?;
        Ok(Some(link))
    }

    /// The priority, in upper or lower case. `medium` means normal. An unknown value also means normal, and
    /// is kept in `data`.
    fn priority(&mut self) -> Priority {
        let read = |json: &RawValue| {
            let text = serde_json::from_str::<String>(json.get()).ok()?.to_ascii_lowercase();
            if text == "medium" { Some(Priority::Normal) } else { text.parse().ok() }
        };
        self.fields.take_named(&["priority"], read).unwrap_or_default()
    }
}

/// Parses the value of an id field. `None` if there is no value.
fn parsed_id(
    field: &'static str,
    json: Option<&RawValue>,
) -> Result<Option<NotificationId>, InvalidMessage> {
    let Some(json) = json else { return Ok(None) };
    // Unlike an invalid time, an invalid id is an error. If it counted as absent and the sender repeated the
    // message, Belfry would create a second notification.
    let raw: TextOrNumber =
        serde_json::from_str(json.get()).map_err(|error| InvalidMessage::field(field, error))?;
    let id = NotificationId::parse_addressable(&raw.to_string());
    id.map(Some).map_err(|error| InvalidMessage::field(field, error))
}

/// The value if it is a text that is not blank, or a number, which becomes a text.
fn non_blank(json: &RawValue) -> Option<String> {
    let text = serde_json::from_str::<TextOrNumber>(json.get()).ok()?.to_string();
    (!text.trim().is_empty()).then_some(text)
}

fn parse_title(text: &str) -> Result<Title, InvalidMessage> {
    Title::parse(text).map_err(|error| InvalidMessage::field("title", error))
}

/// Cuts a text that is longer than `max` characters. The last character is then `…`.
fn shortened(text: &str, max: usize) -> Cow<'_, str> {
    if text.char_indices().nth(max).is_none() {
        return text.into();
    }
    text.chars().take(max - 1).chain(['…']).collect::<String>().into()
}

/// Converts a JSON object to data, unless it is nested too deeply or too large.
fn checked_data(json: String) -> Result<Data, InvalidMessage> {
    check_depth(&json)?;
    Data::from_valid_json(json).map_err(|error| InvalidMessage::field("data", error))
}

/// Adds the unused fields of a notification to its `data`. A field is omitted if it does not fit, is nested
/// too deeply, or has the name of a field of `data`. The field [`OMITTED`] has the names of the omitted
/// fields. If long texts are not cut, a field that would be omitted makes the message invalid.
fn with_unused_fields(
    data: Option<Data>,
    unused: Vec<(&str, &RawValue)>,
    mapping: &MessageMapping,
) -> Result<Option<Data>, InvalidMessage> {
    /// Room for the closing brace and for the names of omitted fields.
    const RESERVED_BYTES: usize = 1_024;
    if unused.is_empty() {
        return Ok(data);
    }
    let data = data.as_ref().map_or("{}", Data::as_str);
    let existing: JsonFields<'_> =
        serde_json::from_str(data).map_err(|error| InvalidMessage::field("data", error))?;
    let without_brace = data.trim_end().strip_suffix('}').unwrap_or(data);
    let mut object = without_brace.trim_end().to_owned();
    let mut omitted = Vec::new();
    for (name, value) in unused {
        let name_json = serde_json::Value::from(name).to_string();
        let bytes = object.len() + name_json.len() + value.get().len() + RESERVED_BYTES;
        let fits = bytes <= Data::MAX_BYTES;
        if existing.contains(name) || !fits || check_depth(value.get()).is_err() {
            omitted.push(name);
            continue;
        }
        if object.len() > 1 {
            object.push(',');
        }
        object.push_str(&name_json);
        object.push(':');
        object.push_str(value.get());
    }
    if !omitted.is_empty() {
        if !mapping.cut_long_texts {
            let problem = format!("cannot also hold the fields {}", omitted.join(", "));
            return Err(InvalidMessage::field("data", problem));
        }
        let mut names: Vec<&str> = Vec::new();
        // The name of the field, its punctuation and the closing brace.
        let mut bytes = object.len() + OMITTED.len() + 8;
        for name in omitted {
            // Each byte may need an escape such as `\u0001`. Each name has quotes and a comma.
            bytes += name.len() * 6 + 3;
            if bytes < Data::MAX_BYTES {
                names.push(name);
            }
        }
        if object.len() > 1 {
            object.push(',');
        }
        let names = serde_json::Value::from(names).to_string();
        object.extend(["\"", OMITTED, "\":", &names]);
    }
    object.push('}');
    checked_data(object).map(Some)
}

#[cfg(test)]
mod tests;
