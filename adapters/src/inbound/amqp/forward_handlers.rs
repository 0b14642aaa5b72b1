use std::sync::Arc;

use belfry_application::ports::{Clock, TokenOwner};
use belfry_application::use_cases::{ForwardEvent, ForwardedEvent, RevokeTokens};
use belfry_domain::{Timestamp, UserId};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldArray, FieldTable, ShortString};

use super::command::revocation;
use super::forwarded::{encode_forwarded, forwarded_events};
use super::invalid_message::InvalidMessage;
use super::message::Envelope;
use super::message_handler::{HandlerError, MessageHandler};
use super::message_mapping::MessageMapping;
use super::pattern::Pattern;
use crate::amqp::{
    ConfirmChannel, EPOCH_HEADER, FORWARDED_EPOCH, Publish, Publisher, RequiredTopology, Topology,
    set_accepted_at,
};
use crate::inbound::socket_latency::SocketLatency;

/// The command of a message in forward mode.
#[derive(Debug, Clone)]
pub enum ForwardCommand<E> {
    /// Forward an event to the users' devices.
    Forward {
        /// In [`ForwardHere`]: the decoded events, one for each recipient. In [`ForwardToNodes`]: the encoded
        /// event.
        event: E,
        /// See [`Envelope::accepted_at`].
        accepted_at: Option<Timestamp>,
    },
    /// Revoke the user's tokens and end their sessions, which Belfry manages in forward mode, too.
    RevokeTokens {
        /// The owner of the tokens.
        user: UserId,
        /// The tokens issued before this instant are revoked; `None` means now.
        issued_before: Option<Timestamp>,
    },
}

impl<E> ForwardCommand<E> {
    fn decode(
        envelope: &Envelope<'_>,
        event: impl FnOnce() -> Result<E, InvalidMessage>,
    ) -> Result<Self, InvalidMessage> {
        if envelope.is_query() {
            return Err(InvalidMessage::InboxNotKept);
        }
        if envelope.pattern == Pattern::RevokeTokens {
            let (user, issued_before) = revocation(envelope.data)?;
            return Ok(Self::RevokeTokens { user, issued_before });
        }
        Ok(Self::Forward { event: event()?, accepted_at: envelope.accepted_at })
    }

    fn ordering_key(&self, user: impl FnOnce(&E) -> &UserId) -> UserId {
        match self {
            Self::Forward { event, .. } => user(event).clone(),
            Self::RevokeTokens { user, .. } => user.clone(),
        }
    }
}

async fn revoke(
    tokens: &RevokeTokens,
    user: UserId,
    issued_before: Option<Timestamp>,
) -> Result<(), HandlerError> {
    tokens.run(TokenOwner::User(user), issued_before).await?;
    Ok(())
}

/// Forward mode on a single node: events go directly to this node's devices. With several nodes, an event would
/// reach only the devices of the node that consumes it.
pub struct ForwardHere {
    forward: ForwardEvent,
    revoke_tokens: RevokeTokens,
    latency: SocketLatency,
}

impl ForwardHere {
    /// `forward` delivers the events to this node's devices.
    pub fn new(forward: ForwardEvent, revoke_tokens: RevokeTokens, clock: Arc<dyn Clock>) -> Self {
        Self { forward, revoke_tokens, latency: SocketLatency::since_publication(clock) }
    }
}

impl MessageHandler for ForwardHere {
    /// One event for each recipient, and at least one.
    type Command = ForwardCommand<Vec<ForwardedEvent>>;
    type OrderingKey = UserId;

    /// A message to several users keeps its order only for the first user.
    fn ordering_key(command: &Self::Command) -> UserId {
        command.ordering_key(|events| &events[0].user)
    }

    fn decode(
        &self,
        envelope: &Envelope<'_>,
        mapping: &MessageMapping,
    ) -> Result<Self::Command, InvalidMessage> {
        ForwardCommand::decode(envelope, || forwarded_events(envelope, mapping))
    }

    async fn run(&self, commands: Vec<Self::Command>) -> Vec<Result<(), HandlerError>> {
        let mut results = Vec::with_capacity(commands.len());
        for command in commands {
            results.push(match command {
                ForwardCommand::Forward { event: events, accepted_at } => {
                    let mut devices = 0;
                    for event in events {
                        devices += self.forward.run(event).await;
                    }
                    self.latency.record(accepted_at, devices);
                    Ok(())
                }
                ForwardCommand::RevokeTokens { user, issued_before } => {
                    revoke(&self.revoke_tokens, user, issued_before).await
                }
            });
        }
        results
    }
}

/// Forward mode on any number of nodes: events go to every node's queue, and to other services.
///
/// The routing key is the pattern as the sender named it, so that other services can bind their queues with
/// it. A pattern can have any name, so all node queues are bound with a second routing key,
/// `Topology::FORWARDED`, which is in the header `BCC`. RabbitMQ puts a message into a queue once, even if
/// both keys match, and removes that header.
///
/// Events are published as transient messages, since forward mode stores nothing. An event that is in the
/// broker when it restarts does not reach the devices, just as if they were offline.
pub struct ForwardToNodes {
    channel: ConfirmChannel,
    exchange: Box<str>,
    /// The headers of every event.
    headers: FieldTable,
    revoke_tokens: RevokeTokens,
}

/// An event, encoded for the events exchange.
#[derive(Debug, Clone)]
pub struct EncodedEvent {
    /// The first recipient.
    user: UserId,
    pattern: ShortString,
    body: Vec<u8>,
}

impl ForwardToNodes {
    /// Publishes to the events exchange of `topology`.
    pub fn new(publisher: &Publisher, topology: &Topology, revoke_tokens: RevokeTokens) -> Self {
        let text = |text: &str| AMQPValue::LongString(text.into());
        let mut headers = FieldTable::default();
        headers.insert(EPOCH_HEADER.into(), text(FORWARDED_EPOCH));
        let further_routing_keys = FieldArray::from(vec![text(Topology::FORWARDED)]);
        headers.insert("BCC".into(), AMQPValue::FieldArray(further_routing_keys));
        Self {
            channel: publisher.channel(RequiredTopology::Events),
            exchange: topology.events_exchange().into(),
            headers,
            revoke_tokens,
        }
    }

    fn message<'a>(
        &'a self,
        event: &'a EncodedEvent,
        accepted_at: Option<Timestamp>,
    ) -> Publish<'a> {
        let mut headers = self.headers.clone();
        if let Some(at) = accepted_at {
            set_accepted_at(&mut headers, at);
        }
        Publish {
            exchange: &self.exchange,
            routing_key: event.pattern.as_str(),
            mandatory: false,
            properties: BasicProperties::default()
                .with_content_type("application/json".into())
                .with_type(event.pattern.clone())
                .with_app_id("belfry".into())
                .with_headers(headers),
            body: &event.body,
        }
    }
}

impl EncodedEvent {
    fn of(envelope: &Envelope<'_>, mapping: &MessageMapping) -> Result<Self, InvalidMessage> {
        if envelope.is_forwarded {
            // The ingest queue is bound to the events exchange, so Belfry would forward the event again and again.
            return Err(InvalidMessage::AlreadyForwarded);
        }
        // Every node decodes the event. It is also decoded here, so that an invalid message becomes a dead letter.
        let mut events = forwarded_events(envelope, mapping)?;
        let pattern = ShortString::try_new(&*envelope.name);
        let pattern =
            pattern.map_err(|_| InvalidMessage::field("pattern", "must have at most 255 bytes"))?;
        Ok(Self { user: events.swap_remove(0).user, pattern, body: encode_forwarded(envelope)? })
    }
}

impl MessageHandler for ForwardToNodes {
    type Command = ForwardCommand<EncodedEvent>;
    type OrderingKey = UserId;

    fn ordering_key(command: &Self::Command) -> UserId {
        command.ordering_key(|event| &event.user)
    }

    fn decode(
        &self,
        envelope: &Envelope<'_>,
        mapping: &MessageMapping,
    ) -> Result<Self::Command, InvalidMessage> {
        ForwardCommand::decode(envelope, || EncodedEvent::of(envelope, mapping))
    }

    async fn run(&self, commands: Vec<Self::Command>) -> Vec<Result<(), HandlerError>> {
        let messages: Vec<_> = commands
            .iter()
            .filter_map(|command| match command {
                ForwardCommand::Forward { event, accepted_at } => {
                    Some(self.message(event, *accepted_at))
                }
                ForwardCommand::RevokeTokens { .. } => None,
            })
            .collect();
        let confirmation = self.channel.publish(&messages).await;
        // All messages that are not confirmed share one error.
        let error = confirmation.error.map(Arc::new);
        let mut confirmed = confirmation.confirmed;
        let mut results = Vec::with_capacity(commands.len());
        for command in commands {
            results.push(match (command, &error) {
                (ForwardCommand::RevokeTokens { user, issued_before }, _) => {
                    revoke(&self.revoke_tokens, user, issued_before).await
                }
                (ForwardCommand::Forward { .. }, _) if confirmed > 0 => {
                    confirmed -= 1;
                    Ok(())
                }
                (ForwardCommand::Forward { .. }, Some(error)) => {
                    Err(HandlerError::Unavailable(error.clone().into()))
                }
                (ForwardCommand::Forward { .. }, None) => {
                    Err(HandlerError::Unavailable("not confirmed".into()))
                }
            });
        }
        results
    }
}

#[cfg(test)]
mod tests {
    use belfry_application::revoked_tokens::RevokedTokens;
    use belfry_application::testing::{InMemoryStore, ManualClock, RecordingDelivery, epoch};

    use super::*;

    #[test]
    fn request_that_reads_an_inbox_is_refused() {
        let store = Arc::new(InMemoryStore::new(epoch("e1")));
        let (revoked, clock) = (Arc::new(RevokedTokens::empty()), Arc::new(ManualClock::at(0)));
        let forward = ForwardEvent::new(Arc::new(RecordingDelivery::default()));
        let revoke_tokens = RevokeTokens::new(store, revoked, clock.clone());
        let handler = ForwardHere::new(forward, revoke_tokens, clock);
        let decode = |pattern, is_request| {
            let envelope = Envelope {
                pattern,
                name: "n".to_owned(),
                data: serde_json::from_str(r#"{"userId":"ada","count":3}"#).unwrap(),
                message_id: None,
                trace: None,
                is_request,
                is_forwarded: false,
                accepted_at: None,
            };
            handler.decode(&envelope, &MessageMapping::default()).map(drop)
        };
        assert_eq!(decode(Pattern::List, true), Err(InvalidMessage::InboxNotKept));
        assert_eq!(decode(Pattern::UnreadCount, true), Err(InvalidMessage::InboxNotKept));
        assert_eq!(decode(Pattern::List, false), Err(InvalidMessage::unknown("n")));
        assert_eq!(decode(Pattern::UnreadCount, false), Ok(()));
    }
}
