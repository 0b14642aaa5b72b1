use belfry_domain::{NotificationId, Timestamp};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};

use super::command::command;
use super::forwarded::{forwarded, read_passed, write_passed};
use super::message::{Envelope, Incoming, said_to_be_about};
use crate::fuzzing::first_line;

const QUEUE: &str = "belfry.ingest";

/// A message: a line with its routing key, or with the type of a CloudEvent behind `ce:`, then its
/// body. It is read for both modes, and what is forwarded arrives as it was sent.
///
/// # Panics
/// When that does not hold.
pub fn message(bytes: &[u8]) {
    let (line, body) = first_line(bytes);
    let Ok(line) = std::str::from_utf8(line) else { return };
    let (properties, routing_key) = match line.strip_prefix("ce:") {
        Some(kind) => (cloud_event(kind), QUEUE),
        None => (BasicProperties::default(), line),
    };
    let message = Incoming { body, exchange: "", routing_key, properties: &properties };
    // Any text will do, or none.
    let _ = said_to_be_about(&message, QUEUE);
    let Ok(envelope) = Envelope::open(&message, QUEUE) else { return };
    let new_id = || NotificationId::parse("made").expect("it is visible");
    let _ = command(&envelope, new_id, Timestamp::from_unix_millis(1_800_000_000_000));
    if let Ok(event) = forwarded(&envelope) {
        let sent = write_passed(&event).expect("what was read as JSON is JSON");
        assert_eq!(read_passed(&sent).expect("what was written is read"), event);
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
