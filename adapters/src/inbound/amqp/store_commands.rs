use std::sync::Arc;

use belfry_application::ports::{Clock, IdGenerator};
use belfry_application::use_cases::{Command, HandleCommands};
use belfry_domain::UserId;

use super::command::decode_command;
use super::message::{Envelope, InvalidMessage};
use super::message_handler::{HandlerError, MessageHandler};

/// Store mode: the commands change inboxes.
pub struct StoreCommands {
    commands: HandleCommands,
    ids: Arc<dyn IdGenerator>,
    clock: Arc<dyn Clock>,
}

impl StoreCommands {
    /// `ids` and `clock` fill in the fields that a sender left out.
    pub fn new(commands: HandleCommands, ids: Arc<dyn IdGenerator>, clock: Arc<dyn Clock>) -> Self {
        Self { commands, ids, clock }
    }
}

impl MessageHandler for StoreCommands {
    type Command = Command;
    type OrderingKey = UserId;

    fn ordering_key(command: &Command) -> UserId {
        command.user().clone()
    }

    fn decode(&self, envelope: &Envelope<'_>) -> Result<Command, InvalidMessage> {
        decode_command(envelope, || self.ids.notification_id(), self.clock.now())
    }

    fn has_expired(&self, command: &Command) -> bool {
        let now = self.clock.now();
        matches!(command, Command::Create(draft) if draft.expires_at.is_some_and(|end| end <= now))
    }

    async fn run(&self, commands: Vec<Command>) -> Vec<Result<(), HandlerError>> {
        let results = self.commands.run(commands).await.into_iter();
        results.map(|result| result.map_err(HandlerError::from)).collect()
    }
}
