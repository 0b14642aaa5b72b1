use std::sync::Arc;

use belfry_application::ports::{Clock, IdGenerator};
use belfry_application::use_cases::{Command, HandleCommands};
use belfry_domain::UserId;

use super::command::decode_commands;
use super::message::{Envelope, InvalidMessage};
use super::message_handler::{HandlerError, MessageHandler};
use super::message_mapping::MessageMapping;

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
    /// The commands of one message.
    type Command = Vec<Command>;
    type OrderingKey = UserId;

    /// A message to several users keeps its order only in the inbox of the first.
    fn ordering_key(commands: &Vec<Command>) -> UserId {
        commands[0].user().clone()
    }

    fn decode(
        &self,
        envelope: &Envelope<'_>,
        mapping: &MessageMapping,
    ) -> Result<Vec<Command>, InvalidMessage> {
        decode_commands(envelope, mapping, || self.ids.notification_id(), self.clock.now())
    }

    fn has_expired(&self, commands: &Vec<Command>) -> bool {
        let now = self.clock.now();
        // All drafts of a message are the same but for their users.
        matches!(&commands[0], Command::Create(draft) if draft.expires_at.is_some_and(|end| end <= now))
    }

    /// The result of a message is the first error of its commands. All of them are repeated then; each has an
    /// effect only once.
    async fn run(&self, messages: Vec<Vec<Command>>) -> Vec<Result<(), HandlerError>> {
        let lengths: Vec<_> = messages.iter().map(Vec::len).collect();
        let commands = messages.into_iter().flatten().collect();
        let mut results = self.commands.run(commands).await.into_iter();
        let of_message = |len| {
            let results: Vec<_> = results.by_ref().take(len).collect();
            results.into_iter().collect::<Result<(), _>>().map_err(HandlerError::from)
        };
        lengths.into_iter().map(of_message).collect()
    }
}
