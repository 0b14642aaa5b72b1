use std::collections::BTreeSet;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection, ErrorKind, ExchangeKind};
use parking_lot::Mutex;
use tracing::{info, warn};

use super::channels::close_channel;
use super::connection_error::ConnectionError;
use super::ingest_queue::QueueDeclaration;
use super::missing_right::{MissingRight, Right};

/// Whether the broker closed the channel with an error of one of these kinds.
pub(crate) fn is_channel_error(error: &lapin::Error, kinds: &[AMQPSoftError]) -> bool {
    match error.kind() {
        ErrorKind::ProtocolError(error) => match error.kind() {
            AMQPErrorKind::Soft(kind) => kinds.contains(kind),
            AMQPErrorKind::Hard(_) => false,
        },
        _ => false,
    }
}

/// Whether the broker refused an operation for lack of a right.
pub(crate) fn is_access_refused(error: &lapin::Error) -> bool {
    is_channel_error(error, &[AMQPSoftError::ACCESSREFUSED])
}

/// The declarations and bindings that the broker refused, because the queue or exchange exists with other
/// properties, or because Belfry lacks a right. Each refusal is logged once. Later connections do not repeat the
/// declaration of a queue or exchange while it exists, but they do repeat a binding.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<BTreeSet<Declaration>>);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Declaration {
    Object(ObjectType, ShortString),
    /// Queue, exchange and routing key.
    Binding(ShortString, ShortString, String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum ObjectType {
    Queue,
    Exchange,
}

impl ObjectType {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Exchange => "exchange",
        }
    }
}

impl Refusals {
    /// Whether the declaration of this queue was refused.
    pub(super) fn has_queue(&self, name: &ShortString) -> bool {
        self.contains(&Declaration::Object(ObjectType::Queue, name.clone()))
    }

    fn contains(&self, declaration: &Declaration) -> bool {
        self.0.lock().contains(declaration)
    }

    /// Returns whether the refusal is new.
    fn insert(&self, declaration: Declaration) -> bool {
        self.0.lock().insert(declaration)
    }
}

/// Whether a queue or exchange exists, according to a passive declaration (which creates nothing).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// It exists. The value is the number of ready messages of a queue, and 0 for an exchange.
    Exists(u32),
    Missing,
    /// Belfry lacks the right to find out: since version 4.3, RabbitMQ requires the right `configure` for a
    /// passive declaration.
    Unknown,
}

/// Declares queues, exchanges and bindings. The broker closes the channel at each refusal, so the declarer
/// then opens a new one.
///
/// A queue or exchange that exists with other properties, or that Belfry may not declare, is used unchanged. If
/// it does not exist and Belfry may not declare it, the error is a [`MissingRight`].
pub(super) struct Declarer<'a> {
    connection: &'a Connection,
    channel: Channel,
    refusals: &'a Refusals,
}

impl<'a> Declarer<'a> {
    pub(super) async fn open(
        connection: &'a Connection,
        refusals: &'a Refusals,
    ) -> lapin::Result<Self> {
        let channel = connection.create_channel().await?;
        Ok(Self { connection, channel, refusals })
    }

    /// Closes the channel, also after a failure, and returns `result`. Dropping the channel instead would leave a
    /// close in flight, which lapin logs as an error if the connection closes at the same time.
    pub(super) async fn finish<T>(
        self,
        result: Result<T, ConnectionError>,
    ) -> Result<T, ConnectionError> {
        close_channel(&self.channel).await;
        result
    }

    /// Declares a queue that only Belfry uses.
    pub(super) async fn durable_queue(
        &mut self,
        name: &ShortString,
        arguments: FieldTable,
    ) -> Result<(), ConnectionError> {
        if self.refusals.has_queue(name) && self.find_queue(name).await? != Presence::Missing {
            return Ok(());
        }
        self.queue(name, QueueDeclareOptions::durable(), arguments).await
    }

    /// Declares a queue that other services use too. If `declaration` is passive, or the broker has refused it
    /// before, a missing queue is an error: Belfry would create it with the wrong properties.
    pub(super) async fn shared_queue(
        &mut self,
        name: &ShortString,
        declaration: &QueueDeclaration,
    ) -> Result<(), ConnectionError> {
        if !declaration.passive && !self.refusals.has_queue(name) {
            return self.queue(name, declaration.options(), declaration.table()).await;
        }
        match self.find_queue(name).await? {
            Presence::Missing => Err(ConnectionError::QueueMissing(name.to_string())),
            Presence::Exists(_) | Presence::Unknown => Ok(()),
        }
    }

    async fn queue(
        &mut self,
        name: &ShortString,
        options: QueueDeclareOptions,
        arguments: FieldTable,
    ) -> Result<(), ConnectionError> {
        match self.channel.queue_declare(name.clone(), options, arguments).await {
            Ok(_) => Ok(()),
            Err(error) if is_refusal(&error) => {
                self.reopen().await?;
                let presence = self.find_queue(name).await?;
                self.use_existing(ObjectType::Queue, name, presence, error)
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn find_queue(&mut self, name: &ShortString) -> lapin::Result<Presence> {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declared =
            self.channel.queue_declare(name.clone(), passive, FieldTable::default()).await;
        self.presence(declared.map(|queue| queue.message_count())).await
    }

    pub(super) async fn durable_exchange(
        &mut self,
        name: &ShortString,
        kind: ExchangeKind,
    ) -> Result<(), ConnectionError> {
        let declaration = Declaration::Object(ObjectType::Exchange, name.clone());
        if self.refusals.contains(&declaration)
            && self.find_exchange(name).await? != Presence::Missing
        {
            return Ok(());
        }
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        match self.exchange(name, kind, durable).await {
            Err(error) if is_refusal(&error) => {
                self.reopen().await?;
                let presence = self.find_exchange(name).await?;
                self.use_existing(ObjectType::Exchange, name, presence, error)
            }
            other => Ok(other?),
        }
    }

    async fn find_exchange(&mut self, name: &ShortString) -> lapin::Result<Presence> {
        let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
        // A passive declaration does not compare the kind.
        let declared = self.exchange(name, ExchangeKind::Topic, passive).await;
        self.presence(declared.map(|()| 0)).await
    }

    async fn exchange(
        &self,
        name: &ShortString,
        kind: ExchangeKind,
        options: ExchangeDeclareOptions,
    ) -> lapin::Result<()> {
        self.channel.exchange_declare(name.clone(), kind, options, FieldTable::default()).await
    }

    /// Binds a queue. If Belfry lacks the right, the binding is assumed to exist: AMQP has no method that looks
    /// up a binding.
    pub(super) async fn bind(
        &mut self,
        queue: &ShortString,
        exchange: &ShortString,
        key: &str,
    ) -> lapin::Result<()> {
        let options = QueueBindOptions::default();
        let arguments = FieldTable::default();
        let bound = self
            .channel
            .queue_bind(queue.clone(), exchange.clone(), key.into(), options, arguments)
            .await;
        match bound {
            Err(error) if is_access_refused(&error) => {
                self.reopen().await?;
                let binding = Declaration::Binding(queue.clone(), exchange.clone(), key.to_owned());
                if self.refusals.insert(binding) {
                    warn!(%queue, %exchange, key, %error, "binding refused; assuming that it exists");
                }
                Ok(())
            }
            other => other,
        }
    }

    /// Converts the result of a passive declaration: the number of messages, or an error.
    async fn presence(&mut self, declared: lapin::Result<u32>) -> lapin::Result<Presence> {
        let presence = match declared {
            Ok(messages) => return Ok(Presence::Exists(messages)),
            Err(error) if is_channel_error(&error, &[AMQPSoftError::NOTFOUND]) => Presence::Missing,
            Err(error) if is_access_refused(&error) => Presence::Unknown,
            Err(error) => return Err(error),
        };
        self.reopen().await?;
        Ok(presence)
    }

    async fn reopen(&mut self) -> lapin::Result<()> {
        self.channel = self.connection.create_channel().await?;
        Ok(())
    }

    /// Handles a declaration that the broker refused with `error`. Records it and succeeds, unless `presence` is
    /// [`Presence::Missing`].
    fn use_existing(
        &self,
        object_type: ObjectType,
        name: &ShortString,
        presence: Presence,
        error: lapin::Error,
    ) -> Result<(), ConnectionError> {
        if presence == Presence::Missing {
            if !is_access_refused(&error) {
                // The broker rejects the arguments of the declaration.
                return Err(error.into());
            }
            let object = format!("{} {name}, which does not exist", object_type.as_str());
            let missing = MissingRight { right: Right::Configure, object, error };
            return Err(Box::new(missing).into());
        }
        if self.refusals.insert(Declaration::Object(object_type, name.clone())) {
            if is_access_refused(&error) {
                info!(%name, "no right to declare; using the existing queue or exchange");
            } else {
                warn!(%name, %error, "declaration refused; using the existing queue or exchange");
            }
        }
        Ok(())
    }
}

/// Whether the object exists with other properties, the arguments are invalid, or Belfry lacks the right.
fn is_refusal(error: &lapin::Error) -> bool {
    is_channel_error(error, &[AMQPSoftError::PRECONDITIONFAILED, AMQPSoftError::ACCESSREFUSED])
}
