use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;
use belfry_application::ports::{
    EventHeader, EventPublisher, InboxRepository, OutboxEntry, PortError, PublishOutcome,
};
use belfry_domain::{Epoch, UserId};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use metrics::Counter;

use crate::amqp::metrics::EVENTS_PUBLISHED;
use crate::amqp::{
    ConfirmChannel, EPOCH_HEADER, PERSISTENT, Publish, Publisher, RequiredTopology, Topology, hash,
    set_accepted_at,
};

/// Publishes events to the events exchange, for the queues of all nodes and for other services.
///
/// The body of a message is the stored event, `{"pattern","data"}`, unchanged. The routing key and the `type` are
/// the event's name. The message is persistent, and its `message_id` is the same each time the event is published.
/// The header `x-belfry-epoch` identifies the store in which revisions and message ids are unique. The header
/// `x-belfry-accepted-at` has the time of the change.
///
/// An event counts as published once the broker has confirmed it. It is then on disk in every bound queue, or no
/// queue is bound.
pub struct AmqpEventPublisher {
    channel: ConfirmChannel,
    exchange: Box<str>,
    inboxes: Arc<dyn InboxRepository>,
    published: Counter,
}

impl AmqpEventPublisher {
    /// Publishes the events of the store of `inboxes` to the events exchange of `topology`.
    pub fn new(
        publisher: &Publisher,
        topology: &Topology,
        inboxes: Arc<dyn InboxRepository>,
    ) -> Self {
        Self {
            channel: publisher.channel(RequiredTopology::Events),
            exchange: topology.events_exchange().into(),
            inboxes,
            published: metrics::counter!(EVENTS_PUBLISHED),
        }
    }
}

#[async_trait]
impl EventPublisher for AmqpEventPublisher {
    async fn publish(&self, entries: &[OutboxEntry]) -> PublishOutcome {
        let epoch = match self.inboxes.epoch().await {
            Ok(epoch) => epoch,
            Err(error) => return PublishOutcome::failed_after(0, error),
        };
        let messages: Vec<_> = entries
            .iter()
            .map(|entry| Publish {
                exchange: &self.exchange,
                routing_key: entry.header.name.as_str(),
                mandatory: false,
                properties: properties(entry, &epoch),
                body: entry.body.as_bytes(),
            })
            .collect();
        let confirmation = self.channel.publish(&messages).await;
        self.published.increment(confirmation.confirmed as u64);
        match confirmation.error {
            None => PublishOutcome::all_confirmed(entries),
            Some(error) => {
                PublishOutcome::failed_after(confirmation.confirmed, PortError::unavailable(error))
            }
        }
    }
}

fn properties(entry: &OutboxEntry, epoch: &Epoch) -> BasicProperties {
    let trace = match &entry.trace {
        Some(trace) => Cow::Borrowed(trace.as_str()),
        None => Cow::Owned(new_trace()),
    };
    let mut headers = FieldTable::default();
    headers.insert("traceparent".into(), AMQPValue::LongString(trace.as_bytes().into()));
    headers.insert(EPOCH_HEADER.into(), AMQPValue::LongString(epoch.as_str().into()));
    set_accepted_at(&mut headers, entry.written_at);
    let seconds = entry.written_at.unix_millis().div_euclid(1_000);
    BasicProperties::default()
        .with_content_type("application/json".into())
        .with_delivery_mode(PERSISTENT)
        .with_message_id(message_id(&entry.header))
        .with_timestamp(u64::try_from(seconds).unwrap_or_default())
        .with_type(entry.header.name.as_str().into())
        .with_app_id("belfry".into())
        .with_headers(headers)
}

/// `<userId>:<revision>`, unique within a store. A user id that is too long is replaced by its hash.
fn message_id(header: &EventHeader) -> ShortString {
    let user = shortened(&header.user);
    ShortString::try_new(format!("{user}:{}", header.revision)).unwrap_or_default()
}

/// The user id in at most 230 bytes. A message id has at most 255, so a colon and a revision (20 digits) fit
/// behind it.
fn shortened(user: &UserId) -> Cow<'_, str> {
    const MAX_BYTES: usize = 230;
    let id = user.as_str();
    if id.len() <= MAX_BYTES {
        return Cow::Borrowed(id);
    }
    Cow::Owned(hash(id))
}

/// The `traceparent` of a new trace that is not sampled (W3C Trace Context, flags `00`).
fn new_trace() -> String {
    let id = || fastrand::u64(1..);
    format!("00-{:016x}{:016x}-{:016x}-00", id(), id(), id())
}

#[cfg(test)]
mod tests {
    use belfry_application::ports::OutboxId;
    use belfry_application::testing::{at, epoch, user};
    use belfry_application::trace::TraceParent;
    use belfry_domain::{EventName, Revision};

    use super::*;

    fn entry(recipient: &str, revision: u64) -> OutboxEntry {
        OutboxEntry {
            id: OutboxId(1),
            header: EventHeader {
                name: EventName::parse("notification.created").unwrap(),
                user: user(recipient),
                revision: Revision::new(revision),
            },
            body: "{}".into(),
            written_at: at(1_795_421_730_123),
            trace: None,
        }
    }

    fn trace_of(properties: &BasicProperties) -> String {
        match properties.headers().as_ref().unwrap().inner().get("traceparent") {
            Some(AMQPValue::LongString(text)) => text.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn properties_describe_the_event() {
        let properties = properties(&entry("ada", 7), &epoch("e1"));
        let text = |field: &Option<ShortString>| field.as_ref().unwrap().to_string();
        let headers = properties.headers().as_ref().unwrap();
        assert_eq!(headers.inner()["x-belfry-epoch"], AMQPValue::LongString("e1".into()));
        let accepted_at = AMQPValue::LongLongInt(1_795_421_730_123);
        assert_eq!(headers.inner()["x-belfry-accepted-at"], accepted_at);
        assert_eq!(text(properties.content_type()), "application/json");
        assert_eq!(text(properties.message_id()), "ada:7");
        assert_eq!(text(properties.kind()), "notification.created");
        assert_eq!(text(properties.app_id()), "belfry");
        assert_eq!(*properties.delivery_mode(), Some(2));
        assert_eq!(*properties.timestamp(), Some(1_795_421_730));
    }

    #[test]
    fn too_long_user_id_is_hashed_in_the_message_id() {
        let longest = |last: &str| format!("{}{last}", "𝒳".repeat(254));
        let ids: Vec<_> = ["𝒴", "𝒵"]
            .map(|last| message_id(&entry(&longest(last), u64::MAX).header).to_string())
            .into();
        assert_ne!(ids[0], ids[1]);
        assert!(ids.iter().all(|id| id.ends_with(&format!(":{}", u64::MAX))));
        let longest_unhashed = "u".repeat(230);
        let id = message_id(&entry(&longest_unhashed, 1).header).to_string();
        assert_eq!(id, format!("{longest_unhashed}:1"));
    }

    #[test]
    fn trace_of_the_entry_is_continued_and_without_one_a_new_trace_is_started() {
        const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let traced =
            OutboxEntry { trace: Some(TraceParent::parse(PARENT).unwrap()), ..entry("ada", 1) };
        assert_eq!(trace_of(&properties(&traced, &epoch("e1"))), PARENT);
        let started = trace_of(&properties(&entry("ada", 1), &epoch("e1")));
        assert!(TraceParent::parse(&started).is_ok(), "{started}");
    }
}
