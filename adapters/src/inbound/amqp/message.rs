use belfry_application::trace::TraceParent;
use belfry_domain::{NotificationId, Timestamp};
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::ShortString;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::headers::{self, text_of};
use super::invalid_message::{InvalidMessage, MAX_BODY};
use super::pattern::{Pattern, PatternNames, pattern_name};
use crate::amqp::{EPOCH_HEADER, FORWARDED_EPOCH, hash};

/// A received message with its original exchange and routing key.
pub(super) struct Incoming<'a> {
    pub(super) body: &'a [u8],
    pub(super) exchange: &'a str,
    pub(super) routing_key: &'a str,
    pub(super) properties: &'a BasicProperties,
}

impl<'a> From<&'a Delivery> for Incoming<'a> {
    /// The headers of a message from a retry queue contain its original exchange and routing key.
    fn from(delivery: &'a Delivery) -> Self {
        let headers = delivery.properties.headers().as_ref();
        let original =
            |name, current| headers.and_then(|table| text_of(table, name)).unwrap_or(current);
        Self {
            body: &delivery.data,
            exchange: original(headers::EXCHANGE, delivery.exchange.as_str()),
            routing_key: original(headers::ROUTING_KEY, delivery.routing_key.as_str()),
            properties: &delivery.properties,
        }
    }
}

/// The envelope of a message in any of these forms:
///
/// - NestJS: the body is `{"pattern":"notification.create","data":{…}}`.
/// - Bare data: the body is the data. The pattern is the routing key or the property `type`.
/// - A CloudEvent (version 1.0) in structured mode: the body is `{"specversion","type","source","id","data"}`.
/// - A CloudEvent in binary mode: the body is the data. The attributes are headers such as
///   `cloudEvents:type`, with the prefix `cloudEvents:`, `cloudEvents_`, or `ce-` as in HTTP.
///
/// The pattern of a CloudEvent is its type, which may have a prefix, such as the reverse domain name that the
/// specification of CloudEvents recommends.
#[derive(Debug)]
pub struct Envelope<'a> {
    /// The operation or event that the message names.
    pub pattern: Pattern,
    /// The name of the pattern, as the sender wrote it, but without the prefix of a CloudEvent's type.
    pub name: String,
    /// The JSON of the data, not parsed yet.
    pub data: &'a RawValue,
    /// Identifies the message; it is the same if the message is sent again. For a CloudEvent, it consists of
    /// the source and the id. For any other message, it consists of the AMQP properties `app_id` and
    /// `message_id`.
    pub message_id: Option<NotificationId>,
    /// The trace that the message belongs to.
    pub trace: Option<TraceParent>,
    /// Whether the sender waits for a response.
    pub is_request: bool,
    /// Whether Belfry has forwarded the message already.
    pub is_forwarded: bool,
    /// When the message was published or, if that is unknown, received. Only ingest sets it, to measure how
    /// long the event takes to reach devices.
    pub accepted_at: Option<Timestamp>,
}

/// The fields of the body that determine its form. Their values are parsed only where they are needed,
/// because bare data may have fields of these names with another meaning.
#[derive(Deserialize)]
struct EnvelopeForm<'a> {
    #[serde(borrow)]
    pattern: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    specversion: Option<&'a RawValue>,
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    source: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    traceparent: Option<&'a RawValue>,
}

impl<'a> EnvelopeForm<'a> {
    /// The pattern of a message in NestJS's form. A `pattern` without `data` may be a field of bare data, so it counts
    /// only if the message has no other pattern.
    fn nest_pattern(&self, has_other_pattern: bool) -> Option<&'a RawValue> {
        self.pattern.filter(|_| self.data.is_some() || !has_other_pattern)
    }
}

impl<'a> Envelope<'a> {
    /// Whether the message asks for data of an inbox instead of changing it.
    pub(super) fn is_query(&self) -> bool {
        self.is_request && matches!(self.pattern, Pattern::List | Pattern::UnreadCount)
    }

    /// Reads the envelope of a message that was consumed from `queue`.
    pub(super) fn open(
        message: &Incoming<'a>,
        queue: &str,
        names: &PatternNames,
    ) -> Result<Self, InvalidMessage> {
        let text = json_text(message.body)?;
        let form: EnvelopeForm<'a> = serde_json::from_str(text)
            .map_err(|error| InvalidMessage::NotJson(error.to_string()))?;
        // The header comes from the latest hop, so it takes precedence over the attribute of a CloudEvent.
        let trace = |attribute: Option<String>| {
            let header = header(message.properties, "traceparent").map(str::to_owned);
            TraceParent::parse(&header.or(attribute)?).ok()
        };
        let whole_body = || serde_json::from_str(text).map_err(|_| InvalidMessage::NoData);
        let is_forwarded = header(message.properties, EPOCH_HEADER) == Some(FORWARDED_EPOCH);

        // A CloudEvent in binary mode.
        if let Some(event) = CloudEventHeaders::of(message.properties) {
            let (pattern, name) = names.find_cloud_event_type(event.kind)?;
            return Ok(Self {
                pattern,
                name: name.to_owned(),
                data: whole_body()?,
                message_id: event.id.and_then(|id| scoped_id(event.source, id)),
                is_request: false,
                is_forwarded,
                accepted_at: None,
                trace: trace(event.traceparent.map(str::to_owned)),
            });
        }
        let outside_body = pattern_outside_body(message, queue, names);
        // NestJS.
        if let Some(pattern) = form.nest_pattern(outside_body.is_ok()) {
            let name =
                pattern_name(pattern).ok_or_else(|| InvalidMessage::unknown(pattern.get()))?;
            return Ok(Self {
                pattern: names.find_or_other(&name)?,
                name,
                data: form.data.ok_or(InvalidMessage::NoData)?,
                message_id: message_id(message.properties),
                is_request: form.id.is_some() && message.properties.reply_to().is_some(),
                is_forwarded,
                accepted_at: None,
                trace: trace(None),
            });
        }
        // A CloudEvent in structured mode.
        if let (Some(_), Some(kind)) = (form.specversion, form.kind.and_then(string)) {
            let source = form.source.and_then(string);
            let id = form.id.and_then(string);
            let (pattern, name) = names.find_cloud_event_type(&kind)?;
            return Ok(Self {
                pattern,
                name: name.to_owned(),
                data: form.data.ok_or(InvalidMessage::NoData)?,
                message_id: id.and_then(|id| scoped_id(source.as_deref(), &id)),
                is_request: false,
                is_forwarded,
                accepted_at: None,
                trace: trace(form.traceparent.and_then(string)),
            });
        }
        // Bare data.
        let (pattern, name) = outside_body?;
        Ok(Self {
            pattern,
            name: name.to_owned(),
            data: whole_body()?,
            message_id: message_id(message.properties),
            is_request: false,
            is_forwarded,
            accepted_at: None,
            trace: trace(None),
        })
    }
}

/// The id of the request, as its sender wrote it, whether [`Envelope::open`] accepts the message or not. `None` if the
/// message is not a request: only NestJS's form has requests, and bare data or a CloudEvent may have an `id` of its own.
pub(super) fn request_id<'a>(
    message: &Incoming<'a>,
    queue: &str,
    names: &PatternNames,
) -> Option<&'a RawValue> {
    if CloudEventHeaders::of(message.properties).is_some() {
        return None;
    }
    let text = text_without_byte_order_mark(message.body).ok()?;
    let form: EnvelopeForm<'a> = serde_json::from_str(text).ok()?;
    form.nest_pattern(pattern_outside_body(message, queue, names).is_ok())?;
    form.id
}

/// The text of a body. Checks its size and that it begins like a JSON object.
fn json_text(body: &[u8]) -> Result<&str, InvalidMessage> {
    if body.len() > MAX_BODY {
        return Err(InvalidMessage::TooLarge(body.len()));
    }
    let text = text_without_byte_order_mark(body)?;
    // serde would also deserialize an array into the fields of a struct.
    match text.trim_start().chars().next() {
        Some('{') => Ok(text),
        Some(other) => Err(InvalidMessage::NotJson(format!("it starts with {other:?}"))),
        None => Err(InvalidMessage::NotJson("it is empty".to_owned())),
    }
}

/// Some libraries write a byte order mark, which is not a part of the JSON (RFC 8259, section 8.1).
fn text_without_byte_order_mark(body: &[u8]) -> Result<&str, InvalidMessage> {
    let text = std::str::from_utf8(body).map_err(|_| InvalidMessage::NotUtf8)?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// The routing key and the property `type`, each of which may be the name of a pattern. The routing key is
/// omitted if the message was sent directly to the queue, because it is then only the queue's name.
fn names_outside_body<'a>(message: &Incoming<'a>, queue: &str) -> [Option<&'a str>; 2] {
    let key = Some(message.routing_key)
        .filter(|key| !key.is_empty() && (*key != queue || !message.exchange.is_empty()));
    [key, message.properties.kind().as_ref().map(ShortString::as_str)]
}

/// The pattern and its name from the routing key, or else from the property `type`.
fn pattern_outside_body<'a>(
    message: &Incoming<'a>,
    queue: &str,
    names: &PatternNames,
) -> Result<(Pattern, &'a str), InvalidMessage> {
    let [key, kind] = names_outside_body(message, queue);
    let find = |name| names.find(name).map(|pattern| (pattern, name));
    if let Some(known) = [key, kind].into_iter().flatten().find_map(find) {
        return Ok(known);
    }
    let name = kind.or(key).ok_or(InvalidMessage::NoPattern)?;
    Ok((names.find_or_other(name)?, name))
}

/// The name of the pattern that a message claims to have, known or not. For display only; [`Envelope::open`]
/// determines the pattern that counts.
pub(super) fn claimed_pattern(message: &Incoming<'_>, queue: &str) -> Option<String> {
    if let Some(event) = CloudEventHeaders::of(message.properties) {
        return Some(event.kind.to_owned());
    }
    let form: Option<EnvelopeForm<'_>> =
        json_text(message.body).ok().and_then(|text| serde_json::from_str(text).ok());
    let inside_body = form.and_then(|form| {
        form.pattern.or(form.specversion.and(form.kind)).filter(|_| form.data.is_some())
    });
    let [key, kind] = names_outside_body(message, queue);
    inside_body.and_then(string).or_else(|| key.or(kind).map(str::to_owned))
}

/// The attributes of a CloudEvent in binary mode.
struct CloudEventHeaders<'a> {
    kind: &'a str,
    source: Option<&'a str>,
    id: Option<&'a str>,
    traceparent: Option<&'a str>,
}

impl<'a> CloudEventHeaders<'a> {
    /// The prefixes of CloudEvents' AMQP binding, old and new, and of its HTTP binding.
    const PREFIXES: [&'static str; 3] = ["cloudEvents:", "cloudEvents_", "ce-"];

    fn of(properties: &'a BasicProperties) -> Option<Self> {
        let headers = properties.headers().as_ref()?;
        Self::PREFIXES.into_iter().find_map(|prefix| {
            let attribute = |name| text_of(headers, &format!("{prefix}{name}"));
            attribute("specversion")?;
            Some(Self {
                kind: attribute("type")?,
                source: attribute("source"),
                id: attribute("id"),
                traceparent: attribute("traceparent"),
            })
        })
    }
}

/// The AMQP `message_id`, scoped by the `app_id`.
fn message_id(properties: &BasicProperties) -> Option<NotificationId> {
    let id = properties.message_id().as_ref()?;
    scoped_id(properties.app_id().as_ref().map(ShortString::as_str), id.as_str())
}

/// An id together with the scope in which it is unique, or the hash of both if they are not a valid
/// [`NotificationId`]. `None` if the id is empty.
fn scoped_id(scope: Option<&str>, id: &str) -> Option<NotificationId> {
    if id.is_empty() {
        return None;
    }
    let scoped = match scope {
        Some(scope) => format!("{scope}|{id}"),
        None => id.to_owned(),
    };
    NotificationId::parse(&scoped).or_else(|_| NotificationId::parse(&hash(&scoped))).ok()
}

/// The value if it is a string.
fn string(json: &RawValue) -> Option<String> {
    serde_json::from_str(json.get()).ok()
}

fn header<'a>(properties: &'a BasicProperties, name: &str) -> Option<&'a str> {
    text_of(properties.headers().as_ref()?, name)
}

#[cfg(test)]
mod tests;
