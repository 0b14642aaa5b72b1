use std::future::ready;
use std::hash::Hash;

use belfry_application::ports::{Cause, PortError};
use belfry_application::use_cases::CommandError;
use serde_json::value::RawValue;

use super::invalid_message::InvalidMessage;
use super::message::Envelope;
use super::message_mapping::MessageMapping;

/// Decodes and executes the messages of the ingest queue.
pub trait MessageHandler: Send + Sync {
    /// The decoded content of one message.
    type Command: Clone + Send + Sync;

    /// Commands with the same key run in the order of their messages.
    type OrderingKey: Eq + Hash + Send;

    /// The key by which the command is ordered.
    fn ordering_key(command: &Self::Command) -> Self::OrderingKey;

    /// Decodes the command of a message.
    fn decode(
        &self,
        envelope: &Envelope<'_>,
        mapping: &MessageMapping,
    ) -> Result<Self::Command, InvalidMessage>;

    /// Whether the notification of the command expired while the message waited. Such a command is dropped and
    /// not run.
    fn has_expired(&self, _command: &Self::Command) -> bool {
        false
    }

    /// The response, as JSON, to a message whose sender waits for one. Called after the command of the
    /// message has run.
    fn respond(
        &self,
        _command: &Self::Command,
    ) -> impl Future<Output = Result<Box<RawValue>, HandlerError>> + Send {
        ready(Ok(RawValue::NULL.to_owned()))
    }

    /// Runs the commands in order and returns one result per command. After `Ok` the message can be
    /// acknowledged.
    fn run(
        &self,
        commands: Vec<Self::Command>,
    ) -> impl Future<Output = Vec<Result<(), HandlerError>>> + Send;
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    /// The store or the broker is unavailable. The command is not at fault.
    #[error("unavailable: {0}")]
    Unavailable(#[source] Cause),
    /// The store may be unavailable, or the command at fault. Only the results of other commands show which.
    #[error("failed: {0}")]
    Failed(#[source] Cause),
    /// The command is rejected and would be rejected again.
    #[error("rejected: {0}")]
    Rejected(#[source] Cause),
    /// A part of the command refers to something that does not exist yet. The other parts of the command are
    /// done. The error does not block later commands with the same key.
    #[error(transparent)]
    TooEarly(Cause),
}

impl From<PortError> for HandlerError {
    fn from(error: PortError) -> Self {
        match error {
            PortError::Unavailable(cause) => Self::Unavailable(cause),
            PortError::Failed(cause) => Self::Failed(cause),
            PortError::Rejected(cause) => Self::Rejected(cause),
        }
    }
}

impl From<CommandError> for HandlerError {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Port(error) => error.into(),
            unknown @ CommandError::UnknownIds(_) => Self::TooEarly(unknown.into()),
        }
    }
}
