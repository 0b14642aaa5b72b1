use std::sync::Arc;

use belfry_application::ports::PortError;
use belfry_application::use_cases::{ForwardEvent, ForwardedEvent, RevokeTokens};
use belfry_domain::{LinkSchemes, Timestamp, UserId};
use lapin::BasicProperties;

use super::command::revocation;
use super::forwarded::{encode_forwarded, forwarded_event};
use super::forwarded_link::without_rejected_link;
use super::message::{Envelope, InvalidMessage, Pattern};
use super::message_handler::{HandlerError, MessageHandler};
use crate::amqp::{ConfirmChannel, Publish, Publisher, RequiredTopology, Topology};

/// The command of a message in forward mode.
#[derive(Debug, Clone)]
pub enum ForwardCommand {
    /// Forward the event to the user's devices.
    Forward(ForwardedEvent),
    /// Revoke the user's tokens. Sessions are Belfry's own, even if another service keeps the inboxes.
    RevokeTokens {
        /// The owner of the tokens.
        user: UserId,
        /// Revokes the tokens issued before that instant; `None` means now.
        issued_before: Option<Timestamp>,
    },
}

impl ForwardCommand {
    fn decode(envelope: &Envelope<'_>, links: &LinkSchemes) -> Result<Self, InvalidMessage> {
        if envelope.pattern == Pattern::RevokeTokens {
            let (user, issued_before) = revocation(envelope.data)?;
            return Ok(Self::RevokeTokens { user, issued_before });
        }
        let mut event = forwarded_event(envelope)?;
        event.push = event.push.map(|push| without_rejected_link(push, links));
        Ok(Self::Forward(event))
    }

    fn user(&self) -> &UserId {
        match self {
            Self::Forward(event) => &event.user,
            Self::RevokeTokens { user, .. } => user,
        }
    }
}

async fn revoke(
    tokens: &RevokeTokens,
    user: UserId,
    issued_before: Option<Timestamp>,
) -> Result<(), HandlerError> {
    tokens.run(user, issued_before).await?;
    Ok(())
}

/// Forward mode on a single node: events go directly to this node's devices. With several nodes, each would
/// deliver only what it consumes itself.
pub struct ForwardHere {
    forward: ForwardEvent,
    revoke_tokens: RevokeTokens,
    links: LinkSchemes,
}

impl ForwardHere {
    /// `forward` delivers the events to this node's devices.
    pub fn new(forward: ForwardEvent, revoke_tokens: RevokeTokens) -> Self {
        Self { forward, revoke_tokens, links: LinkSchemes::default() }
    }

    /// The same with other schemes that links may have.
    #[must_use]
    pub fn with_links(self, links: LinkSchemes) -> Self {
        Self { links, ..self }
    }
}

impl MessageHandler for ForwardHere {
    type Command = ForwardCommand;
    type OrderingKey = UserId;

    fn ordering_key(command: &ForwardCommand) -> UserId {
        command.user().clone()
    }

    fn decode(&self, envelope: &Envelope<'_>) -> Result<ForwardCommand, InvalidMessage> {
        ForwardCommand::decode(envelope, &self.links)
    }

    async fn run(&self, commands: Vec<ForwardCommand>) -> Vec<Result<(), HandlerError>> {
        let mut results = Vec::with_capacity(commands.len());
        for command in commands {
            results.push(match command {
                ForwardCommand::Forward(event) => {
                    self.forward.run(event).await;
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
    links: LinkSchemes,
}

impl ForwardToNodes {
    /// Publishes to the events exchange of `topology`.
    pub fn new(publisher: &Publisher, topology: &Topology, revoke_tokens: RevokeTokens) -> Self {
        Self {
            channel: publisher.channel(RequiredTopology::Events),
            exchange: topology.events_exchange().into(),
            revoke_tokens,
            links: LinkSchemes::default(),
        }
    }

    /// The same with other schemes that links may have.
    #[must_use]
    pub fn with_links(self, links: LinkSchemes) -> Self {
        Self { links, ..self }
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
    Publish(Vec<u8>),
    Revoke(UserId, Option<Timestamp>),
    Reject(PortError),
}

impl Step {
    fn of(command: ForwardCommand) -> Self {
        match command {
            ForwardCommand::RevokeTokens { user, issued_before } => {
                Self::Revoke(user, issued_before)
            }
            ForwardCommand::Forward(event) => match encode_forwarded(&event) {
                Ok(body) => Self::Publish(body),
                Err(error) => Self::Reject(PortError::rejected(error)),
            },
        }
    }

    fn body(&self) -> Option<&[u8]> {
        match self {
            Self::Publish(body) => Some(body),
            Self::Revoke(..) | Self::Reject(_) => None,
        }
    }
}

impl MessageHandler for ForwardToNodes {
    type Command = ForwardCommand;
    type OrderingKey = UserId;

    fn ordering_key(command: &ForwardCommand) -> UserId {
        command.user().clone()
    }

    fn decode(&self, envelope: &Envelope<'_>) -> Result<ForwardCommand, InvalidMessage> {
        ForwardCommand::decode(envelope, &self.links)
    }

    async fn run(&self, commands: Vec<ForwardCommand>) -> Vec<Result<(), HandlerError>> {
        let steps: Vec<_> = commands.into_iter().map(Step::of).collect();
        let bodies = steps.iter().filter_map(Step::body);
        let messages: Vec<_> = bodies.map(|body| self.message(body)).collect();
        let confirmation = self.channel.publish(&messages).await;
        // One error for all messages that are not confirmed.
        let error = confirmation.error.map(Arc::new);
        let mut confirmed = confirmation.confirmed;
        let mut results = Vec::with_capacity(steps.len());
        for step in steps {
            results.push(match (step, &error) {
                (Step::Publish(_), _) if confirmed > 0 => {
                    confirmed -= 1;
                    Ok(())
                }
                (Step::Publish(_), Some(error)) => {
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
