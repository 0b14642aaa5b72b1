//! Events of a realistic size, the same as those of the load tool.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};

const NOTIFICATION: &str = concat!(
    r#"{"id":"0198c1f2-0000-7000-8000-00000000000c","userId":"u42","type":"order.shipped","#,
    r#""title":"Your order is on its way","message":"It left our warehouse this morning and will be "#,
    r#"with you tomorrow.","data":{"seq":12,"at":34},"isRead":false,"#,
    r#""createdAt":"2026-11-23T08:15:30.123Z"}"#
);

/// A message for the ingest queue.
pub(crate) struct SampleMessage {
    pub(crate) body: String,
    pub(crate) routing_key: &'static str,
    pub(crate) properties: BasicProperties,
}

impl SampleMessage {
    fn with_body(body: String) -> Self {
        let properties = BasicProperties::default();
        Self { body, routing_key: "belfry.ingest", properties }
    }
}

/// A notification as another service serialises it.
pub(crate) fn notification() -> &'static str {
    NOTIFICATION
}

fn data() -> String {
    format!(r#"{{"userId":"u42","notification":{NOTIFICATION},"unreadCount":5}}"#)
}

/// A message of a NestJS service.
pub(crate) fn nest() -> SampleMessage {
    SampleMessage::with_body(format!(r#"{{"pattern":"notification.created","data":{}}}"#, data()))
}

/// The same with the flat form of REST, in which the notification contains its recipient.
pub(crate) fn flat() -> SampleMessage {
    SampleMessage::with_body(format!(
        r#"{{"pattern":"notification.created","data":{NOTIFICATION}}}"#
    ))
}

/// Only the data; the routing key is the event's type.
pub(crate) fn bare() -> SampleMessage {
    SampleMessage { routing_key: "notification.created", ..SampleMessage::with_body(data()) }
}

/// A CloudEvent in structured mode: all of it is in the body.
pub(crate) fn cloud_event() -> SampleMessage {
    SampleMessage::with_body(format!(
        concat!(
            r#"{{"specversion":"1.0","id":"4f1c","source":"https://shop.example.org/orders","#,
            r#""type":"org.example.shop.notification.created","data":{data}}}"#
        ),
        data = data()
    ))
}

/// A CloudEvent in binary mode: its attributes are headers.
pub(crate) fn cloud_event_in_headers() -> SampleMessage {
    let mut headers = FieldTable::default();
    for (name, value) in [
        ("cloudEvents:specversion", "1.0"),
        ("cloudEvents:id", "4f1c"),
        ("cloudEvents:source", "https://shop.example.org/orders"),
        ("cloudEvents:type", "org.example.shop.notification.created"),
    ] {
        headers.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    let properties = BasicProperties::default().with_headers(headers);
    SampleMessage { properties, ..SampleMessage::with_body(data()) }
}
