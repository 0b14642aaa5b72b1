use std::sync::Arc;

use belfry_application::ports::{PortError, TokenOwner};
use belfry_application::use_cases::{ForwardEvent, ForwardedEvent, RevokeTokens};
use belfry_domain::{Timestamp, UserId};
use lapin::BasicProperties;

use super::command::revocation;
use super::forwarded::{encode_forwarded, forwarded_events};
use super::forwarded_link::without_rejected_link;
use super::invalid_message::InvalidMessage;
use super::message::Envelope;
use super::message_handler::{HandlerError, MessageHandler};
use super::message_mapping::MessageMapping;
use super::pattern::Pattern;
use crate::amqp::{ConfirmChannel, Publish, Publisher, RequiredTopology, Topology};

/// The command of a message in forward mode.
#[derive(Debug, Clone)]
pub enum ForwardCommand {
    /// Forward the events to the users' devices: at least one.
    Forward(Vec<ForwardedEvent>),
    /// Revoke the user's tokens. Sessions are Belfry's own, even if another service keeps the inboxes.
    RevokeTokens {
        /// The owner of the tokens.
        user: UserId,
        /// Revokes the tokens issued before that instant; `None` means now.
        issued_before: Option<Timestamp>,
    },
}

impl ForwardCommand {
    fn decode(envelope: &Envelope<'_>, mapping: &MessageMapping) -> Result<Self, InvalidMessage> {
        if envelope.pattern == Pattern::RevokeTokens {
            let (user, issued_before) = revocation(envelope.data)?;
            return Ok(Self::RevokeTokens { user, issued_before });
        }
        let mut events = forwarded_events(envelope, mapping)?;
        for event in &mut events {
            let push = event.push.take();
            event.push = push.map(|push| without_rejected_link(push, &mapping.links));
        }
        Ok(Self::Forward(events))
    }

    fn user(&self) -> &UserId {
        match self {
            Self::Forward(events) => &events[0].user,
            Self::RevokeTokens { user, .. } => user,
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

/// Forward mode on a single node: events go directly to this node's devices. With several nodes, each would
/// deliver only what it consumes itself.
pub struct ForwardHere {
    forward: ForwardEvent,
    revoke_tokens: RevokeTokens,
}

impl ForwardHere {
    /// `forward` delivers the events to this node's devices.
    pub fn new(forward: ForwardEvent, revoke_tokens: RevokeTokens) -> Self {
        Self { forward, revoke_tokens }
    }
}

impl MessageHandler for ForwardHere {
    type Command = ForwardCommand;
    type OrderingKey = UserId;

    fn ordering_key(command: &ForwardCommand) -> UserId {
        command.user().clone()
    }

    fn decode(
        &self,
        envelope: &Envelope<'_>,
        mapping: &MessageMapping,
    ) -> Result<ForwardCommand, InvalidMessage> {
        ForwardCommand::decode(envelope, mapping)
    }

    async fn run(&self, commands: Vec<ForwardCommand>) -> Vec<Result<(), HandlerError>> {
        let mut results = Vec::with_capacity(commands.len());
        for command in commands {
            results.push(match command {
                ForwardCommand::Forward(events) => {
                    for event in events {
                        self.forward.run(event).await;
                    }
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

/// Forward mode on any number of nodes: events go to every node's queue.
///
/// Events are published as transient messages, since forward mode stores nothing. An event that is in the
/// broker when it restarts does not reach the devices, just as if they were offline.
pub struct ForwardToNodes {
    channel: ConfirmChannel,
    exchange: Box<str>,
    revoke_tokens: RevokeTokens,
}

impl ForwardToNodes {
    /// Publishes to the events exchange of `topology`.
    pub fn new(publisher: &Publisher, topology: &Topology, revoke_tokens: RevokeTokens) -> Self {
        Self {
            channel: publisher.channel(RequiredTopology::Events),
            exchange: topology.events_exchange().into(),
            revoke_tokens,
        }
    }

    fn message<'a>(&'a self, body: &'a [u8]) -> Publish<'a> {
        Publish {
            exchange: &self.exchange,
            routing_key: Topology::FORWARDED,
            mandatory: false,
            properties: BasicProperties::default()
                .with_content_type("application/json".into())
                .with_app_id("belfry".into()),
            body,
        }
    }
}

/// What one command requires on several nodes.
enum Step {
    /// One body for each event of a message.
    Publish(Vec<Vec<u8>>),
    Revoke(UserId, Option<Timestamp>),
    Reject(PortError),
}

impl Step {
    fn of(command: ForwardCommand) -> Self {
        match command {
            ForwardCommand::RevokeTokens { user, issued_before } => {
                Self::Revoke(user, issued_before)
            }
            ForwardCommand::Forward(events) => {
                match events.iter().map(encode_forwarded).collect() {
                    Ok(bodies) => Self::Publish(bodies),
                    Err(error) => Self::Reject(PortError::rejected(error)),
                }
            }
        }
    }

    fn bodies(&self) -> &[Vec<u8>] {
        match self {
            Self::Publish(bodies) => bodies,
            Self::Revoke(..) | Self::Reject(_) => &[],
        }
    }
}

impl MessageHandler for ForwardToNodes {
    type Command = ForwardCommand;
    type OrderingKey = UserId;

    fn ordering_key(command: &ForwardCommand) -> UserId {
        command.user().clone()
    }

    fn decode(
        &self,
        envelope: &Envelope<'_>,
        mapping: &MessageMapping,
    ) -> Result<ForwardCommand, InvalidMessage> {
        ForwardCommand::decode(envelope, mapping)
    }

    async fn run(&self, commands: Vec<ForwardCommand>) -> Vec<Result<(), HandlerError>> {
        let steps: Vec<_> = commands.into_iter().map(Step::of).collect();
        let bodies = steps.iter().flat_map(Step::bodies);
        let messages: Vec<_> = bodies.map(|body| self.message(body)).collect();
        let confirmation = self.channel.publish(&messages).await;
        // One error for all messages that are not confirmed.
        let error = confirmation.error.map(Arc::new);
        let mut confirmed = confirmation.confirmed;
        let mut results = Vec::with_capacity(steps.len());
        for step in steps {
            results.push(match (step, &error) {
                (Step::Publish(bodies), _) if confirmed >= bodies.len() => {
                    confirmed -= bodies.len();
                    Ok(())
                }
                (Step::Publish(_), Some(error)) => {
                    // Later messages are not confirmed either.
                    confirmed = 0;
                    Err(HandlerError::Unavailable(error.clone().into()))
                }
                (Step::Publish(_), None) => Err(HandlerError::Unavailable("not confirmed".into())),
                (Step::Revoke(user, issued_before), _) => {
                    revoke(&self.revoke_tokens, user, issued_before).await
                }
                (Step::Reject(error), _) => Err(error.into()),
            });
        }
        results
    }
}
