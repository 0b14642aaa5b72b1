//! Decoding a message of the broker into a command. One task does this for all events of the queue, so it
//! limits the rate of a node. It should parse the envelope and keep the payload as text. If it allocated
//! memory for each field of a notification, these benchmarks would show it.

use std::sync::Arc;

use belfry_adapters::bench_support::open_envelope;
use belfry_adapters::inbound::amqp::{ForwardCommand, ForwardHere, MessageHandler, MessageMapping};
use belfry_adapters::wire::EventForm;
use belfry_application::ports::RealtimeDelivery;
use belfry_application::revoked_tokens::RevokedTokens;
use belfry_application::testing::{InMemoryStore, ManualClock, RecordingDelivery, epoch};
use belfry_application::use_cases::{ForwardEvent, ForwardedEvent, RevokeTokens};
use belfry_domain::{Change, DomainEvent, UnreadCount};

use crate::encoding;
use crate::microbenchmarks::Microbenchmarks;
use crate::samples::{self, SampleMessage};

pub(crate) fn measure(benches: &mut Microbenchmarks) {
    let forward = forward_to(Arc::new(RecordingDelivery::default()));
    for (name, message) in [
        ("NestJS", samples::nest()),
        ("NestJS, flat", samples::flat()),
        ("bare", samples::bare()),
        ("CloudEvent", samples::cloud_event()),
        ("CloudEvent in headers", samples::cloud_event_in_headers()),
    ] {
        benches.bench(&format!("decoding/{name}"), || read(&forward, &message));
    }
    // In store mode each node reads the events that the relay publishes.
    let notification = encoding::stored();
    let event = EventForm::write(&DomainEvent {
        user: notification.user.clone(),
        revision: notification.revision,
        unread: UnreadCount::new(5),
        change: Change::Created(Box::new(notification)),
    });
    benches.bench("decoding/stored event", || {
        EventForm::read(event.as_bytes()).expect("the event is valid")
    });
}

/// The message handler of forward mode on one node.
pub(crate) fn forward_to(delivery: Arc<dyn RealtimeDelivery>) -> ForwardHere {
    let revocations = Arc::new(InMemoryStore::new(epoch("e1")));
    let revoked = Arc::new(RevokedTokens::empty());
    let clock = Arc::new(ManualClock::at(0));
    let revoke = RevokeTokens::new(revocations, revoked, clock.clone());
    ForwardHere::new(ForwardEvent::new(delivery), revoke, clock)
}

/// Decodes a message into a command.
pub(crate) fn read(
    forward: &ForwardHere,
    message: &SampleMessage,
) -> ForwardCommand<Vec<ForwardedEvent>> {
    let SampleMessage { body, routing_key, properties } = message;
    let envelope = open_envelope(body.as_bytes(), routing_key, properties)
        .expect("the message is well-formed");
    forward.decode(&envelope, &MessageMapping::default()).expect("the message names a user")
}
