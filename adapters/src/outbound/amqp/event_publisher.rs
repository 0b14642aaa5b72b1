use std::borrow::Cow;

use async_trait::async_trait;
use belfry_application::ports::{EventPublisher, OutboxEntry, PortError, PublishOutcome};
use belfry_domain::{DomainEvent, UserId};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use crate::amqp::{Lane, Needs, Outgoing, Publisher, Topology, hash, measures, random};
use crate::wire::EventForm;

/// Publishes to the events exchange, for the queues of all nodes and whoever else listens.
///
/// A message is `{"pattern","data"}` with the event's name as its routing key and its `type`. It is
/// persistent, and its `message_id` is the same each time the event is published. An event counts as
/// published once the broker confirmed it: then it is on disk in every queue that is bound, or no
/// queue is, and nobody listens.
pub struct AmqpEventPublisher {
    lane: Lane,
    exchange: Box<str>,
}

impl AmqpEventPublisher {
    /// Publishes by that publisher, to that topology's events exchange.
    pub fn new(publisher: &Publisher, topology: &Topology) -> Self {
        Self { lane: publisher.lane(Needs::Events), exchange: topology.events_exchange().into() }
    }
}

#[async_trait]
impl EventPublisher for AmqpEventPublisher {
    async fn publish(&self, entries: &[OutboxEntry]) -> PublishOutcome {
        let bodies: Vec<_> = entries.iter().map(|entry| EventForm::write(&entry.event)).collect();
        let messages: Vec<_> = entries
            .iter()
            .zip(&bodies)
            .map(|(entry, body)| Outgoing {
                exchange: &self.exchange,
                routing_key: entry.event.name(),
                mandatory: false,
                properties: properties(entry),
                body: body.as_bytes(),
            })
            .collect();
        let sent = self.lane.publish(&messages).await;
        metrics::counter!(measures::EVENTS_PUBLISHED).increment(sent.confirmed as u64);
        match sent.stopped_by {
            None => PublishOutcome::all_confirmed(entries),
            Some(error) => {
                PublishOutcome::failed_after(sent.confirmed, PortError::unavailable(error))
            }
        }
    }
}

fn properties(entry: &OutboxEntry) -> BasicProperties {
    let trace = match &entry.trace {
        Some(trace) => Cow::Borrowed(trace.as_str()),
        None => Cow::Owned(new_trace()),
    };
    let mut headers = FieldTable::default();
    headers.insert("traceparent".into(), AMQPValue::LongString(trace.as_bytes().into()));
    let seconds = entry.written_at.unix_millis().div_euclid(1_000);
    BasicProperties::default()
        .with_content_type("application/json".into())
        .with_delivery_mode(2)
        .with_message_id(message_id(&entry.event))
        .with_timestamp(u64::try_from(seconds).unwrap_or_default())
        .with_type(entry.event.name().into())
        .with_app_id("belfry".into())
        .with_headers(headers)
}

/// `<userId>:<revision>`, which no two events of a store share. AMQP has 255 bytes for it; the hash
/// of a user id stands in for one that would not fit.
fn message_id(event: &DomainEvent) -> ShortString {
    let user = within_bounds(&event.user);
    ShortString::try_new(format!("{user}:{}", event.revision)).unwrap_or_default()
}

/// A user id in at most 230 bytes, which leaves room for the longest revision.
fn within_bounds(user: &UserId) -> Cow<'_, str> {
    let id = user.as_str();
    if id.len() <= 230 {
        return Cow::Borrowed(id);
    }
    Cow::Owned(hash(id))
}

/// A trace that begins here, and that nobody records (W3C Trace Context, flags `00`).
fn new_trace() -> String {
    // None of the two ids may be zero.
    format!("00-{:016x}{:016x}-{:016x}-00", random() | 1, random(), random() | 1)
}

#[cfg(test)]
mod tests {
    use belfry_application::ports::OutboxId;
    use belfry_application::testing::{a_draft, at, user};
    use belfry_application::trace::TraceParent;
    use belfry_domain::{Change, Revision, UnreadCount};

    use super::*;

    fn entry(recipient: &str, revision: u64) -> OutboxEntry {
        let revision = Revision::new(revision);
        let notification = a_draft("ada", "n1").into_notification(revision);
        OutboxEntry {
            id: OutboxId(1),
            event: DomainEvent {
                user: user(recipient),
                revision,
                unread: UnreadCount::new(1),
                change: Change::Created(Box::new(notification)),
            },
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
    fn a_message_says_what_it_is_beside_its_body() {
        let properties = properties(&entry("ada", 7));
        let text = |field: &Option<ShortString>| field.as_ref().unwrap().to_string();
        assert_eq!(text(properties.content_type()), "application/json");
        assert_eq!(text(properties.message_id()), "ada:7");
        assert_eq!(text(properties.kind()), "notification.created");
        assert_eq!(text(properties.app_id()), "belfry");
        assert_eq!(*properties.delivery_mode(), Some(2));
        assert_eq!(*properties.timestamp(), Some(1_795_421_730));
    }

    #[test]
    fn the_longest_user_id_fits_in_a_message_id_and_stays_distinct() {
        let longest = |last: &str| format!("{}{last}", "𝒳".repeat(127));
        let ids: Vec<_> = ["𝒴", "𝒵"]
            .map(|last| message_id(&entry(&longest(last), u64::MAX).event).to_string())
            .into();
        assert_ne!(ids[0], ids[1]);
        assert!(ids.iter().all(|id| id.ends_with(&format!(":{}", u64::MAX))));
        let fits = "u".repeat(128);
        assert_eq!(message_id(&entry(&fits, 1).event).to_string(), format!("{fits}:1"));
    }

    #[test]
    fn a_trace_is_carried_on_or_begun() {
        const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let traced =
            OutboxEntry { trace: Some(TraceParent::parse(PARENT).unwrap()), ..entry("ada", 1) };
        assert_eq!(trace_of(&properties(&traced)), PARENT);
        let begun = trace_of(&properties(&entry("ada", 1)));
        assert!(TraceParent::parse(&begun).is_ok(), "{begun}");
    }
}
