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

/// The field of `data` with the names of the fields that were omitted; see [`data_with`].
const OMITTED: &str = "_omitted";

/// A notification in a message.
pub(super) struct SentNotification {
    /// With the first recipient.
    pub(super) draft: Draft,
    /// At least one.
    pub(super) recipients: Vec<UserId>,
    /// Whether the recipients have read it already, according to the sender.
    pub(super) is_read: bool,
}

/// Reads the notification of a message. Its data is the notification or contains it in the field `notification`.
///
/// An invalid time, type or priority does not make the message invalid: it counts as absent. Fields that are not
/// used are kept in `data`.
pub(super) fn sent_notification(
    data: &RawValue,
    mapping: &MessageMapping,
    message_id: Option<&NotificationId>,
    new_id: impl FnOnce() -> NotificationId,
    now: Timestamp,
) -> Result<SentNotification, InvalidMessage> {
    let mut outer: JsonFields<'_> = json_object::borrowed(data)?;
    let inner = outer.take_named(&["notification"], |json| serde_json::from_str(json.get()).ok());
    let is_wrapped = inner.is_some();
    let mut inner: JsonFields<'_> = inner.unwrap_or_default();

    let mut recipients = recipients(&mut outer, mapping)?;
    if is_wrapped {
        let of_inner = self::recipients(&mut inner, mapping)?;
        recipients = recipients.or(of_inner);
    }
    let recipients = recipients.ok_or_else(missing_recipient)?;
    outer.ignore(&["unreadCount", "count"]);
    let fields = if is_wrapped { &mut inner } else { &mut outer };
    let is_read = is_read(fields);
    let mut reader = Reader { fields, mapping, message_id, is_read };
    let mut draft = reader.draft(recipients[0].clone(), new_id, now)?;
    let rest = inner.unused().chain(outer.unused());
    draft.data = data_with(draft.data.take(), rest.collect(), mapping)?;
    let draft = draft.check().map_err(|error| InvalidMessage::field("expiresAt", error))?;
    Ok(SentNotification { draft, recipients, is_read })
}

/// The users in the first recipient field that has any. `None` if none has.
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

/// `isRead: true` or `read: true`, or a time in `readAt`.
fn is_read(fields: &mut JsonFields<'_>) -> bool {
    let flags = ["isRead", "is_read", "read"];
    let flag = fields.take_named(&flags, |json| serde_json::from_str(json.get()).ok());
    let time = fields.take_named(&["readAt", "read_at"], lenient_time);
    flag.unwrap_or(false) || time.is_some()
}

struct Reader<'r, 'a> {
    fields: &'r mut JsonFields<'a>,
    mapping: &'r MessageMapping,
    message_id: Option<&'r NotificationId>,
    is_read: bool,
}

impl Reader<'_, '_> {
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
        // A notification that expired while its message waited is valid; it is dropped later. If it has no
        // creation time, a time before its expiry is assumed, as a draft that is created later is invalid.
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

    /// The type, with `_` in place of whitespace if it is not valid otherwise. `None` if it is still invalid.
    fn kind(&mut self) -> Option<NotificationKind> {
        self.fields.take_first(&self.mapping.kind, |json| {
            let raw = serde_json::from_str::<TextOrNumber>(json.get()).ok()?.to_string();
            NotificationKind::parse(&raw).ok().or_else(|| {
                let words: Vec<_> = raw.split_whitespace().collect();
                NotificationKind::parse(&words.join("_")).ok()
            })
        })
    }

    /// Title and message. If the title is missing, the first line of the message is the title, or else the type. If
    /// the whole message has become the title, the message is empty.
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
                let line = message_text.trim().lines().next().unwrap_or_default();
                let is_all =
                    line == message_text.trim() && line.chars().count() <= Title::MAX_CHARS;
                return Ok((
                    parse_title(&shortened(line, Title::MAX_CHARS))?,
                    self.message(if is_all { "" } else { message_text })?,
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

    fn message(&self, text: &str) -> Result<Message, InvalidMessage> {
        let text = if self.mapping.cut_long_texts {
            shortened(text, Message::MAX_CHARS)
        } else {
            text.into()
        };
        Message::parse(&text).map_err(|error| InvalidMessage::field("message", error))
    }

    /// An object, or a text that contains one. Any other value, such as an array, becomes `{"value":…}`.
    fn data(&mut self) -> Result<Option<Data>, InvalidMessage> {
        let read = |json: &RawValue| {
            let inside =
                json.get().starts_with('"').then(|| serde_json::from_str::<String>(json.get()));
            let inside = inside.and_then(Result::ok);
            match inside.as_deref().map(serde_json::from_str::<&RawValue>) {
                Some(Ok(object)) if json_object::is_object(object) => Some(object.get().to_owned()),
                _ if json_object::is_object(json) => Some(json.get().to_owned()),
                // PHP writes an empty object like this.
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

    /// The priority, in upper or lower case. `medium` means normal. Any other value also means normal, and is kept in
    /// `data`.
    fn priority(&mut self) -> Priority {
        let read = |json: &RawValue| {
            let text = serde_json::from_str::<String>(json.get()).ok()?.to_ascii_lowercase();
            if text == "medium" { Some(Priority::Normal) } else { text.parse().ok() }
        };
        self.fields.take_named(&["priority"], read).unwrap_or_default()
    }
}

fn parsed_id(
    field: &'static str,
    json: Option<&RawValue>,
) -> Result<Option<NotificationId>, InvalidMessage> {
    let Some(json) = json else { return Ok(None) };
    // Unlike an invalid time, an invalid id is an error: without the id, a message that its sender repeats would
    // create a second notification.
    let raw: TextOrNumber =
        serde_json::from_str(json.get()).map_err(|error| InvalidMessage::field(field, error))?;
    let id = NotificationId::parse_addressable(&raw.to_string());
    id.map(Some).map_err(|error| InvalidMessage::field(field, error))
}

/// A text that is not blank, or a number as text.
fn non_blank(json: &RawValue) -> Option<String> {
    let text = serde_json::from_str::<TextOrNumber>(json.get()).ok()?.to_string();
    (!text.trim().is_empty()).then_some(text)
}

fn parse_title(text: &str) -> Result<Title, InvalidMessage> {
    Title::parse(text).map_err(|error| InvalidMessage::field("title", error))
}

/// At most `max` characters of a text, with `…` as the last one if it is longer.
fn shortened(text: &str, max: usize) -> Cow<'_, str> {
    if text.char_indices().nth(max).is_none() {
        return text.into();
    }
    text.chars().take(max - 1).chain(['…']).collect::<String>().into()
}

fn checked_data(json: String) -> Result<Data, InvalidMessage> {
    check_depth(&json)?;
    Data::from_valid_json(json).map_err(|error| InvalidMessage::field("data", error))
}

/// Adds the unused fields `rest` to `data`. A field is omitted if it does not fit, is nested too deeply, or has the
/// name of a field of `data`. [`OMITTED`] has the names of the omitted fields. If long texts are not cut, such a
/// field makes the message invalid.
fn data_with(
    data: Option<Data>,
    rest: Vec<(&str, &RawValue)>,
    mapping: &MessageMapping,
) -> Result<Option<Data>, InvalidMessage> {
    if rest.is_empty() {
        return Ok(data);
    }
    let own = data.as_ref().map_or("{}", Data::as_str);
    let taken: JsonFields<'_> =
        serde_json::from_str(own).map_err(|error| InvalidMessage::field("data", error))?;
    let without_end = own.trim_end().strip_suffix('}').unwrap_or(own);
    let mut object = without_end.trim_end().to_owned();
    let mut omitted = Vec::new();
    for (name, value) in rest {
        let is_taken = taken.contains(name);
        let name_json = serde_json::Value::from(name).to_string();
        // Room for the closing brace and for the names of omitted fields.
        let fits = object.len() + name_json.len() + value.get().len() + 1_024 <= Data::MAX_BYTES;
        if is_taken || !fits || check_depth(value.get()).is_err() {
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
            let problem = format!("has no room for {}", omitted.join(", "));
            return Err(InvalidMessage::field("data", problem));
        }
        let mut names: Vec<&str> = Vec::new();
        let mut bytes = object.len() + OMITTED.len() + 8;
        for name in omitted {
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
