//! The headers that Belfry adds to a message in a retry queue or in the dead queue.

use std::collections::BTreeMap;

use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use crate::amqp::PERSISTENT;

/// The prefix of the headers that Belfry adds.
pub(super) const PREFIX: &str = "x-belfry-";
/// A [`FailureReason`](super::FailureReason).
pub(super) const REASON: &str = "x-belfry-reason";
/// The error's text.
pub(super) const ERROR: &str = "x-belfry-error";
/// How often the message has failed.
pub(super) const ATTEMPTS: &str = "x-belfry-attempts";
/// When the message failed for the first time, RFC 3339.
pub(super) const FIRST_FAILED_AT: &str = "x-belfry-first-failed-at";
/// When the message failed last, RFC 3339.
pub(super) const LAST_FAILED_AT: &str = "x-belfry-last-failed-at";
/// The original routing key, with which the producer published the message.
pub(super) const ROUTING_KEY: &str = "x-belfry-routing-key";
/// The original exchange; empty for the default one.
pub(super) const EXCHANGE: &str = "x-belfry-exchange";
/// The original `expiration`.
const EXPIRATION: &str = "x-belfry-expiration";
/// The original `user_id`.
pub(super) const USER_ID: &str = "x-belfry-user-id";
/// The original header `CC`.
const CC: &str = "x-belfry-cc";
/// `true` if the producer's headers were dropped because they were larger than [`MAX_HEADERS_BYTES`].
const HEADERS_DROPPED: &str = "x-belfry-headers-dropped";

/// The limit for a message's headers before Belfry adds its own. All headers must fit in one frame (128 KiB
/// by default): a larger frame would break the connection on every attempt.
const MAX_HEADERS_BYTES: usize = 100_000;

/// Above [`MAX_HEADERS_BYTES`], only those of Belfry's headers are kept that are smaller than this: a
/// producer could send large headers with Belfry's prefix.
const MAX_KEPT_HEADER_BYTES: usize = 2_000;

/// How many characters of an error's text a message gets.
const MAX_ERROR_CHARS: usize = 1_000;

/// How often a message has failed; 0 if it has no valid header [`ATTEMPTS`].
pub(super) fn attempts(properties: &BasicProperties) -> u32 {
    let attempts = properties.headers().as_ref().and_then(|table| table.inner().get(ATTEMPTS));
    match attempts {
        Some(AMQPValue::LongInt(count)) => u32::try_from(*count).unwrap_or_default(),
        _ => 0,
    }
}

/// The value of a header if it is a string.
pub(super) fn text_of<'a>(headers: &'a FieldTable, name: &str) -> Option<&'a str> {
    match headers.inner().get(name)? {
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok(),
        AMQPValue::ShortString(text) => Some(text.as_str()),
        _ => None,
    }
}

/// The properties with which a failed message is published: its own, and headers that describe the failure.
/// `now` is in RFC 3339.
///
/// The message becomes persistent. `expiration`, `user_id` and the header `CC` become headers with other names,
/// because they would affect the published message: `expiration` would let it expire, the broker would refuse
/// a `user_id` other than Belfry's, and `CC` would route it to other queues. RabbitMQ also removes the
/// `expiration` when it dead-letters a message.
pub(super) fn with_failure(
    delivery: &Delivery,
    reason: &str,
    error: &str,
    now: &str,
) -> BasicProperties {
    let old = &delivery.properties;
    let mut headers = kept_headers(old);
    let mut put = |name: &str, value: AMQPValue| {
        headers.insert(name.into(), value);
    };
    let attempts = attempts(old).saturating_add(1);
    put(REASON, text(reason));
    put(ERROR, text(&error.chars().take(MAX_ERROR_CHARS).collect::<String>()));
    put(ATTEMPTS, AMQPValue::LongInt(i32::try_from(attempts).unwrap_or(i32::MAX)));
    put(LAST_FAILED_AT, text(now));
    // A message that has failed before keeps the values of its first failure.
    let existing = old.headers().as_ref();
    let existing_or = |name, new| existing.and_then(|table| text_of(table, name)).unwrap_or(new);
    put(FIRST_FAILED_AT, text(existing_or(FIRST_FAILED_AT, now)));
    put(ROUTING_KEY, text(existing_or(ROUTING_KEY, delivery.routing_key.as_str())));
    put(EXCHANGE, text(existing_or(EXCHANGE, delivery.exchange.as_str())));
    for (name, value) in [(EXPIRATION, old.expiration()), (USER_ID, old.user_id())] {
        if let Some(value) = value {
            put(name, text(value.as_str()));
        }
    }
    with_headers(old, headers.into())
}

/// The same properties with other headers, persistent, and without `expiration` and `user_id`.
pub(super) fn with_headers(old: &BasicProperties, headers: FieldTable) -> BasicProperties {
    type Setter = fn(BasicProperties, ShortString) -> BasicProperties;
    let texts: [(&Option<ShortString>, Setter); 8] = [
        (old.content_type(), BasicProperties::with_content_type),
        (old.content_encoding(), BasicProperties::with_content_encoding),
        (old.correlation_id(), BasicProperties::with_correlation_id),
        (old.reply_to(), BasicProperties::with_reply_to),
        (old.message_id(), BasicProperties::with_message_id),
        (old.kind(), BasicProperties::with_type),
        (old.app_id(), BasicProperties::with_app_id),
        (old.cluster_id(), BasicProperties::with_cluster_id),
    ];
    let mut new = BasicProperties::default().with_headers(headers).with_delivery_mode(PERSISTENT);
    for (value, set) in texts {
        if let Some(value) = value {
            new = set(new, value.clone());
        }
    }
    if let Some(priority) = old.priority() {
        new = new.with_priority(*priority);
    }
    if let Some(timestamp) = old.timestamp() {
        new = new.with_timestamp(*timestamp);
    }
    new
}

/// The headers that a failed message keeps: all of them, or only Belfry's if they are too large together. `CC` is
/// renamed.
fn kept_headers(old: &BasicProperties) -> BTreeMap<ShortString, AMQPValue> {
    let Some(table) = old.headers() else { return BTreeMap::new() };
    let mut headers = table.inner().clone();
    if let Some(cc) = headers.remove("CC") {
        headers.insert(CC.into(), cc);
    }
    if encoded_table_size(table) > MAX_HEADERS_BYTES {
        headers.retain(|name, value| {
            name.as_str().starts_with(PREFIX) && encoded_size(value) < MAX_KEPT_HEADER_BYTES
        });
        headers.insert(HEADERS_DROPPED.into(), AMQPValue::Boolean(true));
    }
    headers
}

/// An upper bound of the encoded size of a value in bytes.
fn encoded_size(value: &AMQPValue) -> usize {
    // The type and the length of a value have at most 5 bytes, the type and a number at most 9.
    8 + match value {
        AMQPValue::LongString(text) => text.len(),
        AMQPValue::ShortString(text) => text.as_str().len(),
        AMQPValue::ByteArray(bytes) => bytes.len(),
        AMQPValue::FieldArray(values) => values.as_slice().iter().map(encoded_size).sum(),
        AMQPValue::FieldTable(table) => encoded_table_size(table),
        _ => 1,
    }
}

fn encoded_table_size(table: &FieldTable) -> usize {
    table.into_iter().map(|(name, value)| 1 + name.as_str().len() + encoded_size(value)).sum()
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(properties: BasicProperties) -> Delivery {
        let mut delivery =
            Delivery::mock(1, "shop".into(), "notification.created".into(), false, b"{}".to_vec());
        delivery.properties = properties;
        delivery
    }

    fn headers(pairs: &[(&str, AMQPValue)]) -> FieldTable {
        let pairs = pairs.iter().map(|(name, value)| ((*name).into(), value.clone()));
        pairs.collect::<BTreeMap<_, _>>().into()
    }

    fn header(properties: &BasicProperties, name: &str) -> Option<AMQPValue> {
        properties.headers().as_ref()?.inner().get(name).cloned()
    }

    #[test]
    fn failure_headers_are_added_and_other_properties_are_kept() {
        let original = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_correlation_id("c".into())
            .with_reply_to("r".into())
            .with_message_id("m".into())
            .with_type("t".into())
            .with_app_id("a".into())
            .with_priority(3)
            .with_timestamp(7)
            .with_delivery_mode(1)
            .with_headers(headers(&[("x-app", text("svc")), ("n", AMQPValue::LongInt(1))]));
        let new = with_failure(&delivery(original.clone()), "invalid", "title: is missing", "now");

        assert_eq!(header(&new, "x-app"), Some(text("svc")));
        assert_eq!(header(&new, "n"), Some(AMQPValue::LongInt(1)));
        for (name, expected) in [
            (REASON, text("invalid")),
            (ERROR, text("title: is missing")),
            (ATTEMPTS, AMQPValue::LongInt(1)),
            (FIRST_FAILED_AT, text("now")),
            (LAST_FAILED_AT, text("now")),
            (ROUTING_KEY, text("notification.created")),
            (EXCHANGE, text("shop")),
        ] {
            assert_eq!(header(&new, name), Some(expected), "{name}");
        }
        let without_headers = |properties: BasicProperties| {
            properties.with_headers(FieldTable::default()).with_delivery_mode(PERSISTENT)
        };
        assert_eq!(without_headers(new), without_headers(original));
    }

    #[test]
    fn second_failure_keeps_the_time_of_the_first_one_and_the_original_routing_key() {
        let first = with_failure(&delivery(BasicProperties::default()), "failed", "x", "then");
        let mut again = delivery(first);
        again.exchange = "".into();
        again.routing_key = "the.queue".into();
        let second = with_failure(&again, "failed", "y", "now");
        for (name, expected) in [
            (ATTEMPTS, AMQPValue::LongInt(2)),
            (ERROR, text("y")),
            (FIRST_FAILED_AT, text("then")),
            (LAST_FAILED_AT, text("now")),
            (ROUTING_KEY, text("notification.created")),
            (EXCHANGE, text("shop")),
        ] {
            assert_eq!(header(&second, name), Some(expected), "{name}");
        }
    }

    #[test]
    fn expiration_user_id_and_cc_become_headers() {
        let original = BasicProperties::default()
            .with_expiration("100".into())
            .with_user_id("shop".into())
            .with_headers(headers(&[("CC", text("elsewhere"))]));
        let new = with_failure(&delivery(original), "invalid", "x", "now");
        assert_eq!((new.expiration(), new.user_id()), (&None, &None));
        assert_eq!(header(&new, "CC"), None);
        assert_eq!(header(&new, EXPIRATION), Some(text("100")));
        assert_eq!(header(&new, USER_ID), Some(text("shop")));
        assert_eq!(header(&new, CC), Some(text("elsewhere")));
    }

    #[test]
    fn headers_too_large_for_a_frame_are_dropped() {
        let huge = headers(&[("x", text(&"y".repeat(120_000))), (ATTEMPTS, AMQPValue::LongInt(2))]);
        let original = BasicProperties::default().with_headers(huge);
        let error = "e".repeat(10_000);
        let new = with_failure(&delivery(original), "invalid", &error, "now");
        assert_eq!(header(&new, "x"), None);
        assert_eq!(header(&new, HEADERS_DROPPED), Some(AMQPValue::Boolean(true)));
        assert_eq!(header(&new, ATTEMPTS), Some(AMQPValue::LongInt(3)));
        assert!(encoded_table_size(new.headers().as_ref().unwrap()) < 5_000);
    }

    #[test]
    fn invalid_attempt_count_is_zero_and_the_largest_does_not_overflow() {
        for count in [AMQPValue::LongInt(-5), text("many"), AMQPValue::Void] {
            let properties = BasicProperties::default().with_headers(headers(&[(ATTEMPTS, count)]));
            assert_eq!(attempts(&properties), 0);
        }
        let max = headers(&[(ATTEMPTS, AMQPValue::LongInt(i32::MAX))]);
        let properties = BasicProperties::default().with_headers(max);
        let new = with_failure(&delivery(properties), "gave_up", "x", "now");
        assert_eq!(header(&new, ATTEMPTS), Some(AMQPValue::LongInt(i32::MAX)));
    }
}
