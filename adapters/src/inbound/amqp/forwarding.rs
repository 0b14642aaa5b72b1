use belfry_application::ports::PortError;
use belfry_application::use_cases::{ForwardEvent, ForwardedEvent, RevokeTokens};
use belfry_domain::{Timestamp, UserId};
use lapin::BasicProperties;

use super::handling::{Failure, Handling};
use super::message::{Envelope, Pattern, Unreadable};
use super::{command, forwarded};
use crate::amqp::{Lane, Needs, Outgoing, Publisher, Topology};

/// What a message asks for in forward mode.
#[derive(Debug, Clone)]
pub enum Forwarding {
    /// To be passed on to its user's devices.
    Pass(ForwardedEvent),
    /// The user's tokens hold no more: sessions are Belfry's own, whoever keeps the inboxes.
    RevokeTokens {
        /// Whose.
        user: UserId,
        /// Those that were issued before that instant, or before now.
        issued_before: Option<Timestamp>,
    },
}

impl Forwarding {
    fn read(envelope: &Envelope<'_>) -> Result<Self, Unreadable> {
        if envelope.pattern == Pattern::RevokeTokens {
            let (user, issued_before) = command::revocation(envelope.data)?;
            return Ok(Self::RevokeTokens { user, issued_before });
        }
        forwarded::forwarded(envelope).map(Self::Pass)
    }

    fn user(&self) -> &UserId {
        match self {
            Self::Pass(event) => &event.user,
            Self::RevokeTokens { user, .. } => user,
        }
    }
}

async fn revoke(
    tokens: &RevokeTokens,
    user: UserId,
    issued_before: Option<Timestamp>,
) -> Result<(), Failure> {
    tokens.run(user, issued_before).await?;
    Ok(())
}

/// Forward mode on one node only: this node's devices hear at once what the messages say. Of several
/// nodes, each would keep what it consumes to itself.
pub struct ForwardHere {
    forward: ForwardEvent,
    revoke_tokens: RevokeTokens,
}

impl ForwardHere {
    /// Tells devices by that.
    pub fn new(forward: ForwardEvent, revoke_tokens: RevokeTokens) -> Self {
        Self { forward, revoke_tokens }
    }
}

impl Handling for ForwardHere {
    type Order = Forwarding;
    type Lane = UserId;

    fn lane(order: &Forwarding) -> UserId {
        order.user().clone()
    }

    fn read(&self, envelope: &Envelope<'_>) -> Result<Forwarding, Unreadable> {
        Forwarding::read(envelope)
    }

    async fn run(&self, orders: Vec<Forwarding>) -> Vec<Result<(), Failure>> {
        let mut answers = Vec::with_capacity(orders.len());
        for order in orders {
            answers.push(match order {
                Forwarding::Pass(event) => {
                    self.forward.run(event).await;
                    Ok(())
                }
                Forwarding::RevokeTokens { user, issued_before } => {
                    revoke(&self.revoke_tokens, user, issued_before).await
                }
            });
        }
        answers
    }
}

/// Forward mode on any number of nodes: what the messages say goes to every node's queue.
///
/// It is published transient, since nothing of it is kept anywhere: an event that finds the broker
/// restarting is lost to the devices, as it would be to a device that is away.
pub struct ForwardToNodes {
    lane: Lane,
    exchange: Box<str>,
    revoke_tokens: RevokeTokens,
}

impl ForwardToNodes {
    /// Publishes by that publisher, to that topology's events exchange.
    pub fn new(publisher: &Publisher, topology: &Topology, revoke_tokens: RevokeTokens) -> Self {
        Self {
            lane: publisher.lane(Needs::Events),
            exchange: topology.events_exchange().into(),
            revoke_tokens,
        }
    }

    /// How many of these the broker has taken over, from the first on; and why it stopped there.
    async fn publish(&self, bodies: &[&[u8]]) -> (usize, Option<String>) {
        let message = |body| Outgoing {
            exchange: &self.exchange,
            routing_key: Topology::PASSED,
            mandatory: false,
            properties: BasicProperties::default()
                .with_content_type("application/json".into())
                .with_app_id("belfry".into()),
            body,
        };
        let messages: Vec<_> = bodies.iter().copied().map(message).collect();
        let sent = self.lane.publish(&messages).await;
        (sent.confirmed, sent.stopped_by.map(|error| error.to_string()))
    }
}

/// What is to be done for an order to several nodes.
enum Step {
    Publish(Vec<u8>),
    Revoke(UserId, Option<Timestamp>),
    Refuse(PortError),
}

impl Step {
    fn of(order: Forwarding) -> Self {
        match order {
            Forwarding::RevokeTokens { user, issued_before } => Self::Revoke(user, issued_before),
            Forwarding::Pass(event) => match forwarded::write_passed(&event) {
                Ok(body) => Self::Publish(body),
                Err(error) => Self::Refuse(PortError::rejected(error)),
            },
        }
    }

    fn body(&self) -> Option<&[u8]> {
        match self {
            Self::Publish(body) => Some(body),
            Self::Revoke(..) | Self::Refuse(_) => None,
        }
    }
}

impl Handling for ForwardToNodes {
    type Order = Forwarding;
    type Lane = UserId;

    fn lane(order: &Forwarding) -> UserId {
        order.user().clone()
    }

    fn read(&self, envelope: &Envelope<'_>) -> Result<Forwarding, Unreadable> {
        Forwarding::read(envelope)
    }

    async fn run(&self, orders: Vec<Forwarding>) -> Vec<Result<(), Failure>> {
        let steps: Vec<_> = orders.into_iter().map(Step::of).collect();
        let bodies: Vec<_> = steps.iter().filter_map(Step::body).collect();
        let (mut confirmed, stopped_by) = self.publish(&bodies).await;
        let mut answers = Vec::with_capacity(steps.len());
        for step in steps {
            answers.push(match step {
                Step::Publish(_) if confirmed > 0 => {
                    confirmed -= 1;
                    Ok(())
                }
                Step::Publish(_) => {
                    Err(Failure::Unavailable(stopped_by.clone().unwrap_or_default().into()))
                }
                Step::Revoke(user, issued_before) => {
                    revoke(&self.revoke_tokens, user, issued_before).await
                }
                Step::Refuse(error) => Err(error.into()),
            });
        }
        answers
    }
}
