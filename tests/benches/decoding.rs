//! What stands between a message from the broker and knowing whom to tell what. Every event pays it,
//! on the one task that consumes the queue, so it bounds what a node can take. It is to read the
//! envelope and carry the payload: an allocation for each field of a notification would show here.

use std::sync::Arc;

use belfry_adapters::bench_support::open;
use belfry_adapters::inbound::amqp::{ForwardCommand, ForwardHere, MessageHandler};
use belfry_adapters::wire::EventForm;
use belfry_application::ports::RealtimeDelivery;
use belfry_application::testing::{InMemoryStore, ManualClock, RecordingDelivery, epoch};
use belfry_application::use_cases::{ForwardEvent, RevokeTokens};
use belfry_domain::{Change, DomainEvent, UnreadCount};

use crate::encoding;
use crate::pieces::Pieces;
use crate::samples::{self, Sent};

pub(crate) fn measure(pieces: &mut Pieces) {
    let forward = forward_to(Arc::new(RecordingDelivery::default()));
    for (name, sent) in [
        ("NestJS", samples::nest()),
        ("NestJS, flat", samples::flat()),
        ("bare", samples::bare()),
        ("CloudEvent", samples::cloud_event()),
        ("CloudEvent in headers", samples::cloud_event_in_headers()),
    ] {
        pieces.piece(&format!("decoding/{name}"), || read(&forward, &sent));
    }
    // In store mode each node reads what the outbox told.
    let notification = encoding::stored();
    let event = EventForm::write(&DomainEvent {
        user: notification.user.clone(),
        revision: notification.revision,
        unread: UnreadCount::new(5),
        change: Change::Created(Box::new(notification)),
    });
    pieces.piece("decoding/stored event", || {
        EventForm::read(event.as_bytes()).expect("it was written as it is read")
    });
}

/// Forward mode on one node, telling by that.
pub(crate) fn forward_to(delivery: Arc<dyn RealtimeDelivery>) -> ForwardHere {
    let revocations = Arc::new(InMemoryStore::new(epoch("e1")));
    let revoke = RevokeTokens::new(revocations, Arc::new(ManualClock::at(0)));
    ForwardHere::new(ForwardEvent::new(delivery), revoke)
}

/// What that message asks for.
pub(crate) fn read(forward: &ForwardHere, sent: &Sent) -> ForwardCommand {
    let Sent { body, routing_key, properties } = sent;
    let envelope = open(body.as_bytes(), routing_key, properties).expect("it is well-formed");
    forward.decode(&envelope).expect("it names a user")
}
