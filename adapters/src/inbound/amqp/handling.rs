use std::hash::Hash;
use std::sync::Arc;

use belfry_application::ports::{Cause, Clock, IdGenerator, PortError};
use belfry_application::use_cases::{Command, CommandError, HandleCommands};
use belfry_domain::UserId;

use super::command;
use super::message::{Envelope, Unreadable};

/// What is done with the messages of the ingest queue.
pub trait Handling: Send + Sync {
    /// What one message asks for.
    type Order: Clone + Send + Sync;

    /// What keeps its order: of one lane each is done before the next one.
    type Lane: Eq + Hash + Send;

    /// The lane of an order.
    fn lane(order: &Self::Order) -> Self::Lane;

    /// Reads what a message asks for.
    fn read(&self, envelope: &Envelope<'_>) -> Result<Self::Order, Unreadable>;

    /// Does all of them in order, and answers for each. After an `Ok` the message may be forgotten.
    fn run(
        &self,
        orders: Vec<Self::Order>,
    ) -> impl Future<Output = Vec<Result<(), Failure>>> + Send;
}

/// Why what a message asks for was not done.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Nothing can be done now; it is not this one's fault.
    #[error("unavailable: {0}")]
    Unavailable(#[source] Cause),
    /// Nothing can be done now, or this one cannot: only others that work tell which.
    #[error("failed: {0}")]
    Failed(#[source] Cause),
    /// It is refused, and would be again.
    #[error("rejected: {0}")]
    Rejected(#[source] Cause),
    /// What it is about is not there yet. It is not in the way of others, and what there was to do
    /// by now is done.
    #[error(transparent)]
    TooEarly(Cause),
}

impl From<PortError> for Failure {
    fn from(error: PortError) -> Self {
        match error {
            PortError::Unavailable(cause) => Self::Unavailable(cause),
            PortError::Failed(cause) => Self::Failed(cause),
            PortError::Rejected(cause) => Self::Rejected(cause),
        }
    }
}

impl From<CommandError> for Failure {
    fn from(why: CommandError) -> Self {
        match why {
            CommandError::Port(error) => error.into(),
            unknown @ CommandError::UnknownIds(_) => Self::TooEarly(unknown.into()),
        }
    }
}

/// Store mode: inboxes change as the messages ask.
pub struct StoreCommands {
    commands: HandleCommands,
    ids: Arc<dyn IdGenerator>,
    clock: Arc<dyn Clock>,
}

impl StoreCommands {
    /// `ids` and `clock` fill in what a sender left open.
    pub fn new(commands: HandleCommands, ids: Arc<dyn IdGenerator>, clock: Arc<dyn Clock>) -> Self {
        Self { commands, ids, clock }
    }
}

impl Handling for StoreCommands {
    type Order = Command;
    type Lane = UserId;

    fn lane(order: &Command) -> UserId {
        order.user().clone()
    }

    fn read(&self, envelope: &Envelope<'_>) -> Result<Command, Unreadable> {
        command::command(envelope, || self.ids.notification_id(), self.clock.now())
    }

    async fn run(&self, orders: Vec<Command>) -> Vec<Result<(), Failure>> {
        let answers = self.commands.run(orders).await.into_iter();
        answers.map(|answer| answer.map_err(Failure::from)).collect()
    }
}
