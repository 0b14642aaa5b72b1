use belfry_domain::{NotificationId, Timestamp};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};

use super::command::decode_message;
use super::forwarded::{decode_forwarded, encode_forwarded, forwarded_events};
use super::message::{Envelope, Incoming, claimed_pattern};
use super::message_mapping::MessageMapping;
use crate::fuzzing::split_first_line;

const QUEUE: &str = "belfry.ingest";

/// Decodes a message for store mode and for forward mode. Input: a line with the routing key, or with `ce:`
/// and the type of a CloudEvent; then the body.
///
/// # Panics
/// When a forwarded event changes through encoding and decoding.
pub fn message(bytes: &[u8]) {
    let (line, body) = split_first_line(bytes);
    let Ok(line) = std::str::from_utf8(line) else { return };
    let (properties, routing_key) = match line.strip_prefix("ce:") {
        Some(kind) => (cloud_event(kind), QUEUE),
        None => (BasicProperties::default(), line),
    };
    let message = Incoming { body, exchange: "", routing_key, properties: &properties };
    // Ignored results may be errors, but no function may panic.
    let _ = claimed_pattern(&message, QUEUE);
    let mapping = MessageMapping::default();
    let Ok(envelope) = Envelope::open(&message, QUEUE, &mapping.patterns) else { return };
    let new_id = || NotificationId::parse("made").expect("a valid id");
    let _ =
        decode_message(&envelope, &mapping, new_id, Timestamp::from_unix_millis(1_800_000_000_000));
    if let (Ok(events), Ok(body)) =
        (forwarded_events(&envelope, &mapping), encode_forwarded(&envelope))
    {
        let properties = BasicProperties::default();
        let exchange = "belfry.events";
        let message = Incoming { body: &body, exchange, routing_key: "", properties: &properties };
        let decoded = decode_forwarded(&message, &mapping).expect("an encoded event is valid");
        assert_eq!(decoded, events);
    }
}

fn cloud_event(kind: &str) -> BasicProperties {
    let mut headers = FieldTable::default();
    for (name, value) in
        [("cloudEvents:specversion", "1.0"), ("cloudEvents:type", kind), ("cloudEvents:id", kind)]
    {
        headers.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    BasicProperties::default().with_headers(headers)
}
