mod dead_letter;

use std::time::Duration;

use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicGetOptions, BasicNackOptions, QueueDeclareOptions};
use lapin::protocol::AMQPSoftError;
use lapin::protocol::constants::REPLY_SUCCESS;
use lapin::types::FieldTable;
use tokio::time::timeout;

pub use dead_letter::DeadLetter;

use super::reason::FailureReason;
use crate::amqp::{
    AmqpSettings, ConnectionError, OneShotConnection, Publish, PublishError, Topology,
    close_channel, is_channel_error, open_confirm_channel, publish_one,
};

/// Lists, replays and deletes the messages of the dead queue, for an operator.
///
/// The connection does not reconnect. If it is lost, all messages that are not yet replayed or deleted
/// are still in the queue.
///
/// Messages are fetched with `basic.get`. Messages that stay in the dead queue are requeued together (`basic.nack`
/// with `requeue`) at the end of each operation; until then no other consumer sees them. A classic queue, which
/// Belfry declares, restores their positions. A quorum queue appends them and counts their deliveries.
pub struct DeadLetters {
    connection: OneShotConnection,
    settings: AmqpSettings,
    topology: Topology,
}

/// Selects dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeadLetterSelection {
    /// All messages.
    All,
    /// The message at this position of the queue, 1 for the first.
    Position(u32),
    /// The messages with this AMQP `message_id`.
    MessageId(String),
    /// The messages with this reason.
    Reason(FailureReason),
}

impl DeadLetterSelection {
    fn matches(&self, letter: &DeadLetter) -> bool {
        match self {
            Self::All => true,
            Self::Position(position) => letter.position() == *position,
            Self::MessageId(id) => letter.message_id() == Some(id.as_str()),
            Self::Reason(reason) => letter.reason() == Some(reason.as_str()),
        }
    }
}

/// Why an operation on the dead queue failed.
#[derive(Debug, thiserror::Error)]
pub enum DeadLettersError {
    /// Belfry could not connect to the broker. The text contains no password.
    #[error("cannot connect to RabbitMQ at {broker}: {error}")]
    Unreachable {
        /// The broker's URL without the password.
        broker: String,
        /// The cause.
        error: String,
    },
    /// The dead queue does not exist.
    #[error("the queue {0} does not exist yet; a running Belfry server declares it")]
    NoQueue(String),
    /// The connection was lost, or the broker did not reply or refused the operation.
    #[error("cannot read the dead queue: {0}")]
    Broker(String),
    /// A replay failed. The message at fault and those behind it are still in the dead queue.
    #[error("the replay stopped after {replayed} messages; all others remain: {error}")]
    NotReplayed {
        /// How many were confirmed in the ingest queue.
        replayed: u32,
        /// The cause.
        error: String,
    },
    /// A deletion failed.
    #[error("the deletion stopped after {deleted} messages; all others remain: {error}")]
    NotPurged {
        /// How many were deleted before the failure.
        deleted: u32,
        /// The cause.
        error: String,
    },
}

impl From<ConnectionError> for DeadLettersError {
    fn from(error: ConnectionError) -> Self {
        Self::Broker(error.to_string())
    }
}

impl DeadLetters {
    /// Connects to the broker.
    pub async fn connect(
        settings: AmqpSettings,
        topology: Topology,
    ) -> Result<Self, DeadLettersError> {
        let opened = OneShotConnection::open(&settings, "dead letters", usize::MAX).await;
        let connection = opened.map_err(|error| DeadLettersError::Unreachable {
            broker: settings.url.to_string(),
            error: error.to_string(),
        })?;
        Ok(Self { connection, settings, topology })
    }

    /// How many selected messages are ready in the queue. Messages that another consumer holds do not count.
    pub async fn count(&self, selection: &DeadLetterSelection) -> Result<u32, DeadLettersError> {
        let mut scan = self.scan().await?;
        let mut count = 0;
        if *selection == DeadLetterSelection::All {
            count = scan.remaining;
        } else {
            while let Some(letter) = scan.next().await? {
                count += u32::from(selection.matches(&letter));
            }
        }
        scan.finish().await?;
        Ok(count)
    }

    /// The first `limit` messages, in order. They stay in the queue.
    pub async fn list(&self, limit: u32) -> Result<Vec<DeadLetter>, DeadLettersError> {
        let mut scan = self.scan().await?.at_most(limit);
        let mut letters = vec![];
        while let Some(letter) = scan.next().await? {
            letters.push(letter);
        }
        scan.finish().await?;
        Ok(letters)
    }

    /// The first selected message. It stays in the queue. During the call, no other consumer sees it and the
    /// messages before it.
    pub async fn show(
        &self,
        selection: &DeadLetterSelection,
    ) -> Result<Option<DeadLetter>, DeadLettersError> {
        let mut scan = self.scan().await?;
        let mut found = None;
        while found.is_none() {
            let Some(letter) = scan.next().await? else { break };
            found = Some(letter).filter(|letter| selection.matches(letter));
        }
        scan.finish().await?;
        Ok(found)
    }

    /// Publishes up to `limit` selected messages to the ingest queue again, in order. Returns how many.
    ///
    /// Each message is published through the default exchange with the flag `mandatory`, and leaves the dead queue
    /// only after its confirm. If the connection is lost in between, the message is in both queues. Messages that
    /// reach the dead queue during the replay are not replayed.
    ///
    /// A message gets its original properties, without the failure headers, so that it has all its attempts
    /// again. It is persistent, even if the original was not. Three properties are not restored:
    ///
    /// - `expiration`, because the message could expire unseen;
    /// - `CC`, because the queues that it names already have the message;
    /// - the `user_id` of another RabbitMQ user, which the broker would refuse.
    ///
    /// A message that was published to an exchange is not published there again, because all other bound
    /// queues would also receive it again. Instead it keeps the headers `x-belfry-exchange` and
    /// `x-belfry-routing-key`, from which [`Ingest`](super::Ingest) gets the message's pattern.
    pub async fn replay(
        &self,
        selection: &DeadLetterSelection,
        limit: u32,
    ) -> Result<u32, DeadLettersError> {
        let mut scan = self.scan().await?;
        let channel = self.confirm_channel().await?;
        let mut replayed = 0;
        let outcome = loop {
            if replayed == limit {
                break Ok(());
            }
            let letter = match scan.next().await {
                Ok(Some(letter)) => letter,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error.to_string()),
            };
            if !selection.matches(&letter) {
                continue;
            }
            if let Err(error) = self.publish(&channel, &letter).await {
                break Err(error.to_string());
            }
            // The message counts even if its removal fails: it is in the ingest queue, and perhaps in both queues.
            replayed += 1;
            if let Err(error) = scan.remove(&letter).await {
                break Err(error.to_string());
            }
        };
        let finished = scan.finish().await.map_err(|error| error.to_string());
        close_channel(&channel).await;
        outcome.and(finished).map_err(|error| DeadLettersError::NotReplayed { replayed, error })?;
        Ok(replayed)
    }

    /// Deletes the selected messages. Returns how many. Messages that arrive during the call are not deleted.
    pub async fn purge(&self, selection: &DeadLetterSelection) -> Result<u32, DeadLettersError> {
        let mut scan = self.scan().await?;
        let mut deleted = 0;
        let outcome = loop {
            match scan.next().await {
                Ok(None) => break Ok(()),
                Ok(Some(letter)) if !selection.matches(&letter) => {}
                Ok(Some(letter)) => match scan.remove(&letter).await {
                    Ok(()) => deleted += 1,
                    Err(error) => break Err(error),
                },
                Err(error) => break Err(error),
            }
        };
        outcome
            .and(scan.finish().await)
            .map_err(|error| DeadLettersError::NotPurged { deleted, error: error.to_string() })?;
        Ok(deleted)
    }

    /// Closes the connection and waits until the broker has received the last acknowledgements.
    pub async fn close(self) {
        self.connection.close().await;
    }

    /// Begins to fetch the messages of the dead queue, on a new channel.
    async fn scan(&self) -> Result<Scan<'_>, DeadLettersError> {
        let time_limit = self.settings.confirm_timeout;
        let queue = self.topology.dead_queue();
        let channel = within(time_limit, self.connection.connection().create_channel()).await?;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declaring = channel.queue_declare(queue.into(), passive, FieldTable::default());
        let found = within(time_limit, declaring).await.map_err(|error| match error {
            ConnectionError::Amqp(error)
                if is_channel_error(&error, &[AMQPSoftError::NOTFOUND]) =>
            {
                DeadLettersError::NoQueue(queue.to_owned())
            }
            other => other.into(),
        })?;
        let (remaining, topology) = (found.message_count(), &self.topology);
        Ok(Scan { channel, topology, timeout: time_limit, remaining, fetched: 0 })
    }

    async fn confirm_channel(&self) -> Result<Channel, ConnectionError> {
        let time_limit = self.settings.confirm_timeout;
        within(time_limit, open_confirm_channel(self.connection.connection())).await
    }

    async fn publish(&self, channel: &Channel, letter: &DeadLetter) -> Result<(), PublishError> {
        // The broker does not read from a blocked connection. It would receive neither this message nor the
        // requeueing of the other messages at the end.
        if self.connection.connection().status().blocked() {
            return Err(PublishError::Blocked);
        }
        let message = Publish {
            exchange: "",
            routing_key: self.topology.ingest_queue(),
            mandatory: true,
            properties: letter.replay_properties(self.settings.url.user()),
            body: letter.body(),
        };
        let time_limit = self.settings.confirm_timeout;
        let publishing = timeout(time_limit, publish_one(channel, &message));
        publishing.await.unwrap_or(Err(PublishError::Timeout(time_limit)))
    }
}

/// Awaits an operation of the broker, at most for `time_limit`.
async fn within<T>(
    time_limit: Duration,
    operation: impl Future<Output = lapin::Result<T>>,
) -> Result<T, ConnectionError> {
    Ok(timeout(time_limit, operation).await.map_err(|_| ConnectionError::Timeout(time_limit))??)
}

/// Fetches the messages that the dead queue had at the start. If the scan is dropped before
/// [`finish`](Self::finish), messages that were not removed return to the queue when the connection ends.
struct Scan<'a> {
    channel: Channel,
    topology: &'a Topology,
    timeout: Duration,
    /// How many messages may still be fetched. Messages that arrive after the start do not count: they may be
    /// replayed messages that failed again.
    remaining: u32,
    /// How many messages have been fetched.
    fetched: u32,
}

impl Scan<'_> {
    fn at_most(mut self, limit: u32) -> Self {
        self.remaining = self.remaining.min(limit);
        self
    }

    async fn next(&mut self) -> Result<Option<DeadLetter>, ConnectionError> {
        if self.remaining == 0 {
            return Ok(None);
        }
        let queue = self.topology.dead_queue().into();
        let getting = self.channel.basic_get(queue, BasicGetOptions::default());
        let Some(message) = within(self.timeout, getting).await? else { return Ok(None) };
        self.remaining -= 1;
        self.fetched += 1;
        let ingest_queue = self.topology.ingest_queue();
        Ok(Some(DeadLetter::new(message.delivery, self.fetched, ingest_queue)))
    }

    /// Removes a fetched message from the queue.
    async fn remove(&self, letter: &DeadLetter) -> Result<(), ConnectionError> {
        let acking = self.channel.basic_ack(letter.tag(), BasicAckOptions::default());
        within(self.timeout, acking).await
    }

    /// Requeues all fetched messages that were not removed.
    async fn finish(self) -> Result<(), ConnectionError> {
        // Tag 0 means all unacknowledged messages. It is valid even if all were removed.
        if self.fetched > 0 {
            let all = BasicNackOptions { multiple: true, requeue: true };
            within(self.timeout, self.channel.basic_nack(0, all)).await?;
        }
        // The broker's reply shows that it has processed the acknowledgements.
        within(self.timeout, self.channel.close(REPLY_SUCCESS, "done".into())).await
    }
}
