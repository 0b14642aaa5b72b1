use std::collections::BTreeSet;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection, ErrorKind, ExchangeKind, Queue};
use parking_lot::Mutex;
use tracing::warn;

/// Whether the broker closed the channel with one of these errors.
pub(crate) fn is_channel_error(error: &lapin::Error, kinds: &[AMQPSoftError]) -> bool {
    match error.kind() {
        ErrorKind::ProtocolError(error) => match error.kind() {
            AMQPErrorKind::Soft(kind) => kinds.contains(kind),
            AMQPErrorKind::Hard(_) => false,
        },
        _ => false,
    }
}

/// Declares queues, exchanges and bindings. The broker closes the channel after each refusal, so it
/// opens a new one then.
pub(super) struct Declarer<'a> {
    connection: &'a Connection,
    channel: Channel,
    refused: &'a Mutex<BTreeSet<ShortString>>,
}

impl<'a> Declarer<'a> {
    /// `refused` keeps the names whose declaration the broker refused, so that later connections do not
    /// try again: each exists with other properties, or we lack the permission to declare it.
    pub(super) async fn open(
        connection: &'a Connection,
        refused: &'a Mutex<BTreeSet<ShortString>>,
    ) -> lapin::Result<Self> {
        let channel = connection.create_channel().await?;
        Ok(Self { connection, channel, refused })
    }

    /// Closes the channel. Dropping it instead would leave a close in flight, which lapin logs as an error
    /// if the connection closes at the same time.
    pub(super) async fn close(self) -> lapin::Result<()> {
        self.channel.close(200, "done".into()).await
    }

    pub(super) async fn queue(
        &mut self,
        name: &ShortString,
        arguments: FieldTable,
    ) -> lapin::Result<()> {
        if self.refused.lock().contains(name) && self.find_queue(name).await?.is_some() {
            return Ok(());
        }
        let durable = QueueDeclareOptions::durable();
        match self.channel.queue_declare(name.clone(), durable, arguments).await {
            Ok(_) => Ok(()),
            Err(error) if is_refusal(&error) => {
                self.channel = self.connection.create_channel().await?;
                if self.find_queue(name).await?.is_none() {
                    return Err(error);
                }
                self.use_existing(name, &error);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    pub(super) async fn find_queue(&mut self, name: &ShortString) -> lapin::Result<Option<Queue>> {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        match self.channel.queue_declare(name.clone(), passive, FieldTable::default()).await {
            Ok(queue) => Ok(Some(queue)),
            Err(error) if is_channel_error(&error, &[AMQPSoftError::NOTFOUND]) => {
                self.channel = self.connection.create_channel().await?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    pub(super) async fn topic_exchange(&mut self, name: &ShortString) -> lapin::Result<()> {
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        match self.exchange(name, durable).await {
            Err(error) if is_refusal(&error) => {
                self.channel = self.connection.create_channel().await?;
                let passive =
                    ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
                self.exchange(name, passive).await?;
                self.use_existing(name, &error);
                Ok(())
            }
            other => other,
        }
    }

    async fn exchange(
        &self,
        name: &ShortString,
        options: ExchangeDeclareOptions,
    ) -> lapin::Result<()> {
        let arguments = FieldTable::default();
        self.channel.exchange_declare(name.clone(), ExchangeKind::Topic, options, arguments).await
    }

    pub(super) async fn bind(
        &self,
        queue: &ShortString,
        exchange: &ShortString,
        key: &str,
    ) -> lapin::Result<()> {
        let options = QueueBindOptions::default();
        let arguments = FieldTable::default();
        self.channel
            .queue_bind(queue.clone(), exchange.clone(), key.into(), options, arguments)
            .await
    }

    fn use_existing(&self, name: &ShortString, error: &lapin::Error) {
        if self.refused.lock().insert(name.clone()) {
            warn!(%name, %error, "declaration refused; using the existing queue or exchange");
        }
    }
}

fn is_refusal(error: &lapin::Error) -> bool {
    is_channel_error(error, &[AMQPSoftError::PRECONDITIONFAILED, AMQPSoftError::ACCESSREFUSED])
}
