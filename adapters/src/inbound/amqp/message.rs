use belfry_application::trace::TraceParent;
use belfry_domain::NotificationId;
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::letters;
use crate::amqp::hash;
use crate::wire::InvalidForm;

/// The largest body that is read, in bytes. The largest notification there can be is a quarter of it.
const MAX_BODY: usize = 1 << 20;

/// A message as RabbitMQ delivers it.
pub(super) struct Incoming<'a> {
    pub(super) body: &'a [u8],
    pub(super) exchange: &'a str,
    pub(super) routing_key: &'a str,
    pub(super) properties: &'a BasicProperties,
}

impl<'a> From<&'a Delivery> for Incoming<'a> {
    /// One that comes back from a retry queue is taken for what it was before.
    fn from(delivery: &'a Delivery) -> Self {
        let headers = delivery.properties.headers().as_ref();
        let first = |name, now| headers.and_then(|table| text_of(table, name)).unwrap_or(now);
        Self {
            body: &delivery.data,
            exchange: first(letters::EXCHANGE, delivery.exchange.as_str()),
            routing_key: first(letters::ROUTING_KEY, delivery.routing_key.as_str()),
            properties: &delivery.properties,
        }
    }
}

/// What a message asks for, whichever of these forms it came in:
///
/// - NestJS: body `{"pattern":"notification.create","data":{…}}`;
/// - bare: the data as body, the pattern as routing key or as the `type` property;
/// - a CloudEvent (version 1.0), structured: body `{"specversion","type","source","id","data"}`;
/// - a CloudEvent, binary: the data as body, the rest in headers `cloudEvents:type` and so on (also
///   with `cloudEvents_`, and with the `ce-` of other transports).
///
/// A CloudEvent's type may have a prefix, such as the reverse domain name its specification advises.
#[derive(Debug)]
pub struct Envelope<'a> {
    /// What it is about.
    pub pattern: Pattern,
    /// The JSON that goes with it, not read yet.
    pub data: &'a RawValue,
    /// Names the message itself: the id of a CloudEvent, within its source, or else the AMQP
    /// `message_id`, within its `app_id`. The same message twice has the same.
    pub named: Option<NotificationId>,
    /// The trace it is a part of.
    pub trace: Option<TraceParent>,
}

/// What a message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// `notification.create` or `notification.created`.
    Create,
    /// `notification.mark_read` or `notification.marked_read`.
    MarkRead,
    /// `notification.mark_all_read` or `notification.all_read`.
    MarkAllRead,
    /// `user.revoke_tokens` or `user.tokens_revoked`.
    RevokeTokens,
    /// `notification.unread_count`, of a service that keeps its own inbox.
    UnreadCount,
}

/// Why a message cannot be read, and never can.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Larger than any notification.
    #[error("the body has {0} bytes; at most {MAX_BODY} are read")]
    TooLarge(usize),
    /// Not text.
    #[error("the body is not UTF-8")]
    NotUtf8,
    /// Not JSON, or not the JSON of an object; says where.
    #[error("the body is not a JSON object: {0}")]
    NotJson(String),
    /// Nothing says what it is about.
    #[error("no pattern: neither in the body nor as routing key or type")]
    NoPattern,
    /// About something else.
    #[error("the pattern {0:?} is none that Belfry knows")]
    UnknownPattern(String),
    /// A pattern, and nothing that goes with it.
    #[error("data is missing")]
    NoData,
    /// A field is missing or wrong.
    #[error("{0}")]
    Field(#[from] InvalidForm),
}

impl Unreadable {
    /// That field has that problem.
    pub fn field(field: &'static str, problem: impl std::fmt::Display) -> Self {
        Self::Field(InvalidForm::new(field, problem))
    }
}

impl Pattern {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "notification.create" | "notification.created" => Self::Create,
            "notification.mark_read" | "notification.marked_read" => Self::MarkRead,
            "notification.mark_all_read" | "notification.all_read" => Self::MarkAllRead,
            "user.revoke_tokens" | "user.tokens_revoked" => Self::RevokeTokens,
            "notification.unread_count" => Self::UnreadCount,
            _ => return None,
        })
    }

    /// `com.example.shop.notification.created` is `notification.created`.
    fn of_cloud_event(kind: &str) -> Result<Self, Unreadable> {
        let begin = kind.rfind(".notification.").map_or(0, |dot| dot + 1);
        Self::of(&kind[begin..]).ok_or_else(|| Unreadable::unknown(kind))
    }
}

impl Unreadable {
    fn unknown(pattern: &str) -> Self {
        Self::UnknownPattern(pattern.chars().take(100).collect())
    }
}

/// The keys of a body that may say what it is. Values are looked at only where they count: data that
/// is sent bare can have fields of these names for itself.
#[derive(Deserialize)]
struct Outer<'a> {
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

impl<'a> Envelope<'a> {
    /// Opens a message that was consumed from that queue.
    pub(super) fn open(message: &Incoming<'a>, queue: &str) -> Result<Self, Unreadable> {
        let text = text(message.body)?;
        let outer: Outer<'a> =
            serde_json::from_str(text).map_err(|error| Unreadable::NotJson(error.to_string()))?;
        let traced = |other: Option<String>| {
            let header = header(message.properties, "traceparent").map(str::to_owned);
            TraceParent::parse(&header.or(other)?).ok()
        };
        let whole = || serde_json::from_str(text).map_err(|_| Unreadable::NoData);

        if let Some(event) = CloudHeaders::of(message.properties) {
            return Ok(Self {
                pattern: Pattern::of_cloud_event(event.kind)?,
                data: whole()?,
                named: event.id.and_then(|id| name_of(event.source, id)),
                trace: traced(event.traceparent.map(str::to_owned)),
            });
        }
        let beside = pattern_beside_body(message, queue);
        if let Some(pattern) = outer.pattern.filter(|_| outer.data.is_some() || beside.is_err()) {
            let pattern = string(pattern).ok_or_else(|| Unreadable::unknown(pattern.get()))?;
            return Ok(Self {
                pattern: Pattern::of(&pattern).ok_or_else(|| Unreadable::unknown(&pattern))?,
                data: outer.data.ok_or(Unreadable::NoData)?,
                named: message_id(message.properties),
                trace: traced(None),
            });
        }
        if let (Some(_), Some(kind)) = (outer.specversion, outer.kind.and_then(string)) {
            let source = outer.source.and_then(string);
            let id = outer.id.and_then(string);
            return Ok(Self {
                pattern: Pattern::of_cloud_event(&kind)?,
                data: outer.data.ok_or(Unreadable::NoData)?,
                named: id.and_then(|id| name_of(source.as_deref(), &id)),
                trace: traced(outer.traceparent.and_then(string)),
            });
        }
        Ok(Self {
            pattern: beside?,
            data: whole()?,
            named: message_id(message.properties),
            trace: traced(None),
        })
    }
}

fn text(body: &[u8]) -> Result<&str, Unreadable> {
    if body.len() > MAX_BODY {
        return Err(Unreadable::TooLarge(body.len()));
    }
    let text = std::str::from_utf8(body).map_err(|_| Unreadable::NotUtf8)?;
    // An array would be taken for an object whose keys were left out.
    match text.trim_start().chars().next() {
        Some('{') => Ok(text),
        Some(other) => Err(Unreadable::NotJson(format!("it begins with {other:?}"))),
        None => Err(Unreadable::NotJson("it is empty".to_owned())),
    }
}

/// The routing key, where it says something, and the `type`.
fn names_beside_body<'a>(message: &Incoming<'a>, queue: &str) -> [Option<&'a str>; 2] {
    let key = Some(message.routing_key)
        .filter(|key| !key.is_empty() && (*key != queue || !message.exchange.is_empty()));
    [key, message.properties.kind().as_ref().map(ShortString::as_str)]
}

/// The pattern as routing key or else as `type`. A message that was sent straight to the queue has
/// the queue's name as routing key, which says nothing.
fn pattern_beside_body(message: &Incoming<'_>, queue: &str) -> Result<Pattern, Unreadable> {
    let [key, kind] = names_beside_body(message, queue);
    let known = [key, kind].into_iter().flatten().find_map(Pattern::of);
    known.ok_or_else(|| kind.or(key).map_or(Unreadable::NoPattern, Unreadable::unknown))
}

/// What a message says that it is about, whether Belfry knows that or not. For people: what counts is
/// what [`Envelope::open`] makes of it.
pub(super) fn said_to_be_about(message: &Incoming<'_>, queue: &str) -> Option<String> {
    if let Some(event) = CloudHeaders::of(message.properties) {
        return Some(event.kind.to_owned());
    }
    let outer: Option<Outer<'_>> =
        text(message.body).ok().and_then(|text| serde_json::from_str(text).ok());
    let inside = outer.and_then(|outer| {
        outer.pattern.or(outer.specversion.and(outer.kind)).filter(|_| outer.data.is_some())
    });
    let [key, kind] = names_beside_body(message, queue);
    inside.and_then(string).or_else(|| key.or(kind).map(str::to_owned))
}

/// The attributes of a CloudEvent in binary mode.
struct CloudHeaders<'a> {
    kind: &'a str,
    source: Option<&'a str>,
    id: Option<&'a str>,
    traceparent: Option<&'a str>,
}

impl<'a> CloudHeaders<'a> {
    /// The prefixes of the AMQP binding, old and new, and that of HTTP.
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

fn message_id(properties: &BasicProperties) -> Option<NotificationId> {
    let id = properties.message_id().as_ref()?;
    name_of(properties.app_id().as_ref().map(ShortString::as_str), id.as_str())
}

/// Ids are unique for whoever gave them, so his name is a part of it. What does not fit in a key is
/// hashed.
fn name_of(scope: Option<&str>, id: &str) -> Option<NotificationId> {
    if id.is_empty() {
        return None;
    }
    let name = match scope {
        Some(scope) => format!("{scope}|{id}"),
        None => id.to_owned(),
    };
    NotificationId::parse(&name).or_else(|_| NotificationId::parse(&hash(&name))).ok()
}

fn string(json: &RawValue) -> Option<String> {
    serde_json::from_str(json.get()).ok()
}

fn header<'a>(properties: &'a BasicProperties, name: &str) -> Option<&'a str> {
    text_of(properties.headers().as_ref()?, name)
}

/// A header that is a text.
pub(super) fn text_of<'a>(headers: &'a FieldTable, name: &str) -> Option<&'a str> {
    match headers.inner().get(name)? {
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok(),
        AMQPValue::ShortString(text) => Some(text.as_str()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
