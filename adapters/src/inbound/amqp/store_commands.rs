use std::sync::Arc;

use belfry_application::ports::{Clock, IdGenerator};
use belfry_application::use_cases::{Command, HandleCommands};
use belfry_domain::{LinkSchemes, UserId};

use super::command::decode_command;
use super::message::{Envelope, InvalidMessage};
use super::message_handler::{HandlerError, MessageHandler};
use crate::wire::check_link;

/// Store mode: the commands change inboxes.
pub struct StoreCommands {
    commands: HandleCommands,
    ids: Arc<dyn IdGenerator>,
    clock: Arc<dyn Clock>,
    links: LinkSchemes,
}

impl StoreCommands {
    /// `ids` and `clock` fill in the fields that a sender left out.
    pub fn new(commands: HandleCommands, ids: Arc<dyn IdGenerator>, clock: Arc<dyn Clock>) -> Self {
        Self { commands, ids, clock, links: LinkSchemes::default() }
    }

    /// The same with other schemes that links may have.
    #[must_use]
    pub fn with_links(self, links: LinkSchemes) -> Self {
        Self { links, ..self }
    }
}

impl MessageHandler for StoreCommands {
    type Command = Command;
    type OrderingKey = UserId;

    fn ordering_key(command: &Command) -> UserId {
        command.user().clone()
    }

    fn decode(&self, envelope: &Envelope<'_>) -> Result<Command, InvalidMessage> {
        let command = decode_command(envelope, || self.ids.notification_id(), self.clock.now())?;
        if let Command::Create(draft) = &command {
            check_link(draft, &self.links)?;
        }
        Ok(command)
    }

    async fn run(&self, commands: Vec<Command>) -> Vec<Result<(), HandlerError>> {
        let results = self.commands.run(commands).await.into_iter();
        results.map(|result| result.map_err(HandlerError::from)).collect()
    }
}
