use std::collections::BTreeMap;

use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use super::super::headers::{self, attempts, text_of, with_headers};
use super::super::message::{Incoming, claimed_pattern};

/// A message in the dead queue.
#[derive(Clone)]
pub struct DeadLetter {
    position: u32,
    tag: u64,
    pattern: Option<String>,
    properties: BasicProperties,
    body: Vec<u8>,
}

impl DeadLetter {
    pub(super) fn new(delivery: Delivery, position: u32, ingest_queue: &str) -> Self {
        // A message without Belfry's headers was published directly to the dead queue by another program. Its
        // routing key is the name of that queue, not a pattern.
        let dead_lettered_by_belfry =
            header_text(&delivery.properties, headers::ROUTING_KEY).is_some();
        let mut incoming = Incoming::from(&delivery);
        if !dead_lettered_by_belfry {
            (incoming.exchange, incoming.routing_key) = ("", "");
        }
        let pattern = claimed_pattern(&incoming, ingest_queue);
        let Delivery { delivery_tag: tag, properties, data: body, .. } = delivery;
        Self { position, tag, pattern, properties, body }
    }

    pub(super) fn tag(&self) -> u64 {
        self.tag
    }

    /// The position in the queue, 1 for the first message.
    pub fn position(&self) -> u32 {
        self.position
    }

    /// The value of a [`FailureReason`](super::super::FailureReason). It may be an unknown one if another version
    /// of Belfry wrote it. `None` if another program published the message to the dead queue.
    pub fn reason(&self) -> Option<&str> {
        self.header_text(headers::REASON)
    }

    /// The error's text.
    pub fn error(&self) -> Option<&str> {
        self.header_text(headers::ERROR)
    }

    /// How often the message failed.
    pub fn attempts(&self) -> u32 {
        attempts(&self.properties)
    }

    /// When the message failed for the first time, RFC 3339.
    pub fn first_failed_at(&self) -> Option<&str> {
        self.header_text(headers::FIRST_FAILED_AT)
    }

    /// When the message failed last, RFC 3339.
    pub fn last_failed_at(&self) -> Option<&str> {
        self.header_text(headers::LAST_FAILED_AT)
    }

    /// The pattern or CloudEvent type of the message, or else its routing key or AMQP `type`. It may be unknown
    /// to Belfry.
    pub fn pattern(&self) -> Option<&str> {
        self.pattern.as_deref()
    }

    /// The AMQP `message_id`.
    pub fn message_id(&self) -> Option<&str> {
        self.properties.message_id().as_ref().map(ShortString::as_str)
    }

    /// The body, unchanged.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Name and value of each AMQP property that is set, without the headers.
    pub fn properties(&self) -> Vec<(&'static str, String)> {
        let properties = &self.properties;
        let text = |value: &Option<ShortString>| value.as_ref().map(ToString::to_string);
        let all = [
            ("content_type", text(properties.content_type())),
            ("content_encoding", text(properties.content_encoding())),
            ("delivery_mode", properties.delivery_mode().map(|mode| mode.to_string())),
            ("priority", properties.priority().map(|priority| priority.to_string())),
            ("correlation_id", text(properties.correlation_id())),
            ("reply_to", text(properties.reply_to())),
            ("expiration", text(properties.expiration())),
            ("message_id", text(properties.message_id())),
            ("timestamp", properties.timestamp().map(|at| at.to_string())),
            ("type", text(properties.kind())),
            ("user_id", text(properties.user_id())),
            ("app_id", text(properties.app_id())),
            ("cluster_id", text(properties.cluster_id())),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    /// Name and value of each header, sorted by name.
    pub fn headers(&self) -> Vec<(String, String)> {
        let Some(table) = self.properties.headers() else { return vec![] };
        let table = table.into_iter();
        table.map(|(name, value)| (name.to_string(), display(value))).collect()
    }

    /// The properties with which `dead-letters replay` publishes the message to the ingest queue, as a
    /// persistent message. They are the original ones, but without `expiration`, `CC` and Belfry's headers.
    /// Of Belfry's headers, `x-belfry-exchange` and `x-belfry-routing-key` stay if the message was published
    /// to an exchange other than the default one. The original `user_id` is restored only if it is `user`,
    /// the AMQP user of this connection, because the broker refuses any other.
    pub(super) fn replay_properties(&self, user: &str) -> BasicProperties {
        let mut headers = BTreeMap::new();
        if let Some(table) = self.properties.headers() {
            headers.clone_from(table.inner());
        }
        // If the message was published to an exchange other than the default one, its original routing key may be
        // its pattern. `x-belfry-exchange` and `x-belfry-routing-key` preserve it.
        let keeps_routing_key =
            self.header_text(headers::EXCHANGE).is_some_and(|name| !name.is_empty());
        headers.retain(|name, _| match name.as_str() {
            headers::EXCHANGE | headers::ROUTING_KEY => keeps_routing_key,
            // The broker would also route the message to the routing keys in `CC`.
            "CC" => false,
            name => !name.starts_with(headers::PREFIX),
        });
        let properties = with_headers(&self.properties, FieldTable::from(headers));
        match self.header_text(headers::USER_ID) {
            Some(original) if original == user => properties.with_user_id(original.into()),
            _ => properties,
        }
    }

    fn header_text(&self, header: &str) -> Option<&str> {
        header_text(&self.properties, header)
    }
}

fn header_text<'a>(properties: &'a BasicProperties, header: &str) -> Option<&'a str> {
    text_of(properties.headers().as_ref()?, header)
}

/// A header's value as text for an operator. Byte arrays are shown by their length.
fn display(value: &AMQPValue) -> String {
    let joined = |items: Vec<String>| items.join(", ");
    match value {
        AMQPValue::LongString(text) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
        AMQPValue::ShortString(text) => text.to_string(),
        AMQPValue::Boolean(it) => it.to_string(),
        AMQPValue::ShortShortInt(it) => it.to_string(),
        AMQPValue::ShortShortUInt(it) => it.to_string(),
        AMQPValue::ShortInt(it) => it.to_string(),
        AMQPValue::ShortUInt(it) => it.to_string(),
        AMQPValue::LongInt(it) => it.to_string(),
        AMQPValue::LongUInt(it) => it.to_string(),
        AMQPValue::LongLongInt(it) => it.to_string(),
        AMQPValue::Timestamp(it) => it.to_string(),
        AMQPValue::Float(it) => it.to_string(),
        AMQPValue::Double(it) => it.to_string(),
        AMQPValue::DecimalValue(it) => format!("{it:?}"),
        AMQPValue::ByteArray(bytes) => format!("{} bytes", bytes.len()),
        AMQPValue::Void => String::new(),
        AMQPValue::FieldArray(all) => {
            format!("[{}]", joined(all.as_slice().iter().map(display).collect()))
        }
        AMQPValue::FieldTable(table) => {
            let pairs =
                table.into_iter().map(|(name, value)| format!("{name}: {}", display(value)));
            format!("{{{}}}", joined(pairs.collect()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUE: &str = "belfry.ingest";

    fn text(text: &str) -> AMQPValue {
        AMQPValue::LongString(text.into())
    }

    fn dead_letter(
        properties: BasicProperties,
        headers: &[(&str, AMQPValue)],
        body: &str,
    ) -> DeadLetter {
        let headers = headers.iter().map(|(name, value)| ((*name).into(), value.clone()));
        let headers = headers.collect::<BTreeMap<_, _>>();
        let queue = "belfry.ingest.dead".into();
        let mut delivery = Delivery::mock(1, "".into(), queue, false, body.into());
        delivery.properties = properties.with_headers(headers.into());
        DeadLetter::new(delivery, 1, QUEUE)
    }

    fn header_names(properties: &BasicProperties) -> Vec<&str> {
        let headers = properties.headers().as_ref().unwrap();
        headers.inner().keys().map(ShortString::as_str).collect()
    }

    #[test]
    fn replayed_message_has_only_the_headers_of_its_producer() {
        let headers = [
            ("x-belfry-reason", text("gave_up")),
            ("x-belfry-attempts", AMQPValue::LongInt(6)),
            ("x-belfry-exchange", text("")),
            ("x-belfry-routing-key", text(QUEUE)),
            ("x-belfry-expiration", text("100")),
            ("x-belfry-user-id", text("shop")),
            ("x-belfry-cc", text("elsewhere")),
            ("x-app", text("svc")),
        ];
        let original = BasicProperties::default().with_message_id("m1".into());
        let dead_letter = dead_letter(original, &headers, "{}");
        let replayed = dead_letter.replay_properties("belfry");
        assert_eq!(header_names(&replayed), ["x-app"]);
        assert_eq!(replayed.message_id().as_ref().unwrap().as_str(), "m1");
        assert_eq!(
            (replayed.expiration(), replayed.user_id(), replayed.delivery_mode()),
            (&None, &None, &Some(2))
        );
        // The broker accepts a user id only if it is the publisher's own.
        assert_eq!(
            dead_letter.replay_properties("shop").user_id().as_ref().unwrap().as_str(),
            "shop"
        );
    }

    #[test]
    fn replayed_message_keeps_its_original_routing_key() {
        let headers = [
            ("x-belfry-exchange", text("shop")),
            ("x-belfry-routing-key", text("notification.create")),
        ];
        let dead_letter = dead_letter(BasicProperties::default(), &headers, "{}");
        assert_eq!(
            header_names(&dead_letter.replay_properties("u")),
            headers.map(|(name, _)| name)
        );
        assert_eq!(dead_letter.pattern(), Some("notification.create"));
    }

    #[test]
    fn pattern_is_found_in_the_body_or_the_type() {
        let to_queue = [("x-belfry-exchange", text("")), ("x-belfry-routing-key", text(QUEUE))];
        let pattern = |properties: &BasicProperties, headers: &[_], body: &str| {
            dead_letter(properties.clone(), headers, body).pattern().map(str::to_owned)
        };
        let plain = BasicProperties::default();
        let typed = BasicProperties::default().with_type("a.b".into());
        let nestjs = r#"{"pattern":"order.placed","data":{}}"#;
        assert_eq!(pattern(&plain, &to_queue, nestjs).as_deref(), Some("order.placed"));
        assert_eq!(pattern(&plain, &to_queue, "{}"), None);
        assert_eq!(pattern(&typed, &to_queue, "not JSON").as_deref(), Some("a.b"));
        assert_eq!(pattern(&plain, &[], "{}"), None, "the name of the dead queue is no pattern");
        let event = r#"{"specversion":"1.0","type":"org.x","source":"/","id":"1","data":1}"#;
        assert_eq!(pattern(&plain, &to_queue, event).as_deref(), Some("org.x"));
    }
}
