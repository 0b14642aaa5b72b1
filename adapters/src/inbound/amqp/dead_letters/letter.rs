use std::collections::BTreeMap;

use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use super::super::letters::{self, attempts, with_headers};
use super::super::message::{Incoming, said_to_be_about, text_of};

/// A message that is in the dead queue.
#[derive(Clone)]
pub struct DeadLetter {
    position: u32,
    tag: u64,
    about: Option<String>,
    properties: BasicProperties,
    body: Vec<u8>,
}

impl DeadLetter {
    pub(super) fn read(delivery: Delivery, position: u32, ingest_queue: &str) -> Self {
        // Who put it here by hand has said nothing of how it was published.
        let by_belfry = text_of_properties(&delivery.properties, letters::ROUTING_KEY).is_some();
        let mut incoming = Incoming::from(&delivery);
        if !by_belfry {
            (incoming.exchange, incoming.routing_key) = ("", "");
        }
        let about = said_to_be_about(&incoming, ingest_queue);
        let Delivery { delivery_tag: tag, properties, data: body, .. } = delivery;
        Self { position, tag, about, properties, body }
    }

    pub(super) fn tag(&self) -> u64 {
        self.tag
    }

    /// Its place in the queue, 1 for the oldest.
    pub fn position(&self) -> u32 {
        self.position
    }

    /// Why it is here: the value of a [`Reason`](super::super::Reason). Other versions may have others,
    /// and one that somebody put here by hand may have none.
    pub fn reason(&self) -> Option<&str> {
        self.text(letters::REASON)
    }

    /// The same in a sentence.
    pub fn error(&self) -> Option<&str> {
        self.text(letters::ERROR)
    }

    /// How often it has failed.
    pub fn attempts(&self) -> u32 {
        attempts(&self.properties)
    }

    /// When it failed for the first time, RFC 3339.
    pub fn first_failed_at(&self) -> Option<&str> {
        self.text(letters::FIRST_FAILED_AT)
    }

    /// When it failed last, RFC 3339.
    pub fn last_failed_at(&self) -> Option<&str> {
        self.text(letters::LAST_FAILED_AT)
    }

    /// The pattern in its body, or else its routing key or `type`, known or not.
    pub fn about(&self) -> Option<&str> {
        self.about.as_deref()
    }

    /// The AMQP `message_id`.
    pub fn message_id(&self) -> Option<&str> {
        self.properties.message_id().as_ref().map(ShortString::as_str)
    }

    /// What was sent.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Its AMQP properties that are set, but for the headers: name and value.
    pub fn properties(&self) -> Vec<(&'static str, String)> {
        let it = &self.properties;
        let text = |value: &Option<ShortString>| value.as_ref().map(ToString::to_string);
        let all = [
            ("content_type", text(it.content_type())),
            ("content_encoding", text(it.content_encoding())),
            ("delivery_mode", it.delivery_mode().map(|mode| mode.to_string())),
            ("priority", it.priority().map(|priority| priority.to_string())),
            ("correlation_id", text(it.correlation_id())),
            ("reply_to", text(it.reply_to())),
            ("expiration", text(it.expiration())),
            ("message_id", text(it.message_id())),
            ("timestamp", it.timestamp().map(|at| at.to_string())),
            ("type", text(it.kind())),
            ("user_id", text(it.user_id())),
            ("app_id", text(it.app_id())),
            ("cluster_id", text(it.cluster_id())),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    /// Its headers, sorted by name: name and value.
    pub fn headers(&self) -> Vec<(String, String)> {
        let Some(table) = self.properties.headers() else { return vec![] };
        let table = table.into_iter();
        table.map(|(name, value)| (name.to_string(), shown(value))).collect()
    }

    /// The properties to send it with once more, as that user.
    pub(super) fn as_it_was(&self, user: &str) -> BasicProperties {
        let mut headers = BTreeMap::new();
        if let Some(table) = self.properties.headers() {
            headers.clone_from(table.inner());
        }
        let by_exchange = self.text(letters::EXCHANGE).is_some_and(|it| !it.is_empty());
        headers.retain(|name, _| match name.as_str() {
            letters::EXCHANGE | letters::ROUTING_KEY => by_exchange,
            "CC" => false,
            name => !name.starts_with(letters::PREFIX),
        });
        let properties = with_headers(&self.properties, FieldTable::from(headers));
        match self.text(letters::USER_ID) {
            Some(own) if own == user => properties.with_user_id(own.into()),
            _ => properties,
        }
    }

    fn text(&self, header: &str) -> Option<&str> {
        text_of_properties(&self.properties, header)
    }
}

fn text_of_properties<'a>(properties: &'a BasicProperties, header: &str) -> Option<&'a str> {
    text_of(properties.headers().as_ref()?, header)
}

fn shown(value: &AMQPValue) -> String {
    let list = |all: Vec<String>| all.join(", ");
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
            format!("[{}]", list(all.as_slice().iter().map(shown).collect()))
        }
        AMQPValue::FieldTable(table) => {
            let pairs = table.into_iter().map(|(name, value)| format!("{name}: {}", shown(value)));
            format!("{{{}}}", list(pairs.collect()))
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

    fn letter(
        properties: BasicProperties,
        headers: &[(&str, AMQPValue)],
        body: &str,
    ) -> DeadLetter {
        let headers = headers.iter().map(|(name, value)| ((*name).into(), value.clone()));
        let headers = headers.collect::<BTreeMap<_, _>>();
        let queue = "belfry.ingest.dead".into();
        let mut delivery = Delivery::mock(1, "".into(), queue, false, body.into());
        delivery.properties = properties.with_headers(headers.into());
        DeadLetter::read(delivery, 1, QUEUE)
    }

    fn names(properties: &BasicProperties) -> Vec<&str> {
        let headers = properties.headers().as_ref().unwrap();
        headers.inner().keys().map(ShortString::as_str).collect()
    }

    #[test]
    fn sent_again_it_has_no_marks_of_its_failures() {
        let marks = [
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
        let letter = letter(original, &marks, "{}");
        let sent = letter.as_it_was("belfry");
        assert_eq!(names(&sent), ["x-app"]);
        assert_eq!(sent.message_id().as_ref().unwrap().as_str(), "m1");
        assert_eq!(
            (sent.expiration(), sent.user_id(), sent.delivery_mode()),
            (&None, &None, &Some(2))
        );
        // The broker lets a user say who he is.
        assert_eq!(letter.as_it_was("shop").user_id().as_ref().unwrap().as_str(), "shop");
    }

    #[test]
    fn sent_again_it_is_read_by_the_routing_key_that_it_had() {
        let marks = [
            ("x-belfry-exchange", text("shop")),
            ("x-belfry-routing-key", text("notification.create")),
        ];
        let letter = letter(BasicProperties::default(), &marks, "{}");
        assert_eq!(names(&letter.as_it_was("u")), marks.map(|(name, _)| name));
        assert_eq!(letter.about(), Some("notification.create"));
    }

    #[test]
    fn what_it_is_about_is_found_wherever_it_was_said() {
        let straight = [("x-belfry-exchange", text("")), ("x-belfry-routing-key", text(QUEUE))];
        let about = |properties: &BasicProperties, headers: &[_], body: &str| {
            letter(properties.clone(), headers, body).about().map(str::to_owned)
        };
        let plain = BasicProperties::default();
        let typed = BasicProperties::default().with_type("a.b".into());
        let nest = r#"{"pattern":"order.placed","data":{}}"#;
        assert_eq!(about(&plain, &straight, nest).as_deref(), Some("order.placed"));
        assert_eq!(about(&plain, &straight, "{}"), None);
        assert_eq!(about(&typed, &straight, "not JSON").as_deref(), Some("a.b"));
        assert_eq!(about(&plain, &[], "{}"), None, "put there by hand");
        let event = r#"{"specversion":"1.0","type":"org.x","source":"/","id":"1","data":1}"#;
        assert_eq!(about(&plain, &straight, event).as_deref(), Some("org.x"));
    }
}
