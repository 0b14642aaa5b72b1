mod letter;

use std::time::Duration;

use lapin::Channel;
use lapin::options::{
    BasicAckOptions, BasicGetOptions, BasicNackOptions, ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::protocol::AMQPSoftError;
use lapin::types::FieldTable;
use tokio::time::timeout;

pub use letter::DeadLetter;

use super::Reason;
use crate::amqp::{
    AmqpSettings, Errand, Lost, NotSent, Outgoing, Topology, is_refused, publish_one, verdict,
};

/// The dead queue, for an operator who looks after it. One connection that is not made again: whatever
/// breaks it, what was not sent again or deleted by then is in the queue as before.
///
/// Messages are taken by `basic.get`, and those that are only looked at are given back (`basic.nack`
/// with `requeue`) all at once when the last of them was seen. RabbitMQ puts them back in their old
/// places of a classic queue, which the dead queue is as Belfry declares it; a quorum queue puts them
/// at its end and counts their deliveries. Until then nobody else sees them.
pub struct DeadLetters {
    errand: Errand,
    settings: AmqpSettings,
    topology: Topology,
}

/// Which of the dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeadLetterSelection {
    /// Each of them.
    All,
    /// The one at that place of the queue, 1 for the first.
    Position(u32),
    /// Those with that AMQP `message_id`.
    MessageId(String),
    /// Those that are here for that reason.
    Reason(Reason),
}

impl DeadLetterSelection {
    fn has(&self, letter: &DeadLetter) -> bool {
        match self {
            Self::All => true,
            Self::Position(position) => letter.position() == *position,
            Self::MessageId(id) => letter.message_id() == Some(id.as_str()),
            Self::Reason(reason) => letter.reason() == Some(reason.as_str()),
        }
    }
}

/// Why the dead queue cannot be worked on (any further).
#[derive(Debug, thiserror::Error)]
pub enum DeadLettersError {
    /// No broker, or it lets nobody in. Shows no password.
    #[error("RabbitMQ cannot be reached at {broker}: {why}")]
    Unreachable {
        /// Where it should be.
        broker: String,
        /// What happened instead.
        why: String,
    },
    /// Nobody has declared it yet.
    #[error("there is no queue {0} at RabbitMQ yet; Belfry declares it when it serves")]
    NoQueue(String),
    /// A connection that was lost, a broker that does not answer or that forbids it.
    #[error("RabbitMQ failed while the dead queue was looked at: {0}")]
    Broker(String),
    /// The first message that the broker did not take stays in the dead queue, and so do those behind it.
    #[error(
        "after {replayed} messages were sent again, one was not and stays, as do all others: {why}"
    )]
    NotReplayed {
        /// So many were confirmed in the ingest queue.
        replayed: u32,
        /// What stopped it there.
        why: String,
    },
    /// It broke in the middle. Those that were deleted are gone, the others are there.
    #[error("after {deleted} messages were deleted, no other was: {why}")]
    NotPurged {
        /// So many were deleted.
        deleted: u32,
        /// What stopped it there.
        why: String,
    },
}

impl From<Lost> for DeadLettersError {
    fn from(lost: Lost) -> Self {
        Self::Broker(lost.to_string())
    }
}

impl DeadLetters {
    /// Connects to that broker, once.
    pub async fn connect(
        settings: AmqpSettings,
        topology: Topology,
    ) -> Result<Self, DeadLettersError> {
        let errand = Errand::begin(&settings, "dead letters").await.map_err(|why| {
            let (broker, why) = (settings.url.to_string(), why.to_string());
            DeadLettersError::Unreachable { broker, why }
        })?;
        Ok(Self { errand, settings, topology })
    }

    /// How many of these are ready in the queue; what somebody holds at this moment does not count.
    pub async fn count(&self, which: &DeadLetterSelection) -> Result<u32, DeadLettersError> {
        if *which == DeadLetterSelection::All {
            return Ok(self.walk().await?.left);
        }
        let mut walk = self.walk().await?;
        let mut count = 0;
        while let Some(letter) = walk.next().await? {
            count += u32::from(which.has(&letter));
        }
        walk.give_back().await?;
        Ok(count)
    }

    /// The first ones, in order, and leaves them there. Never holds more than `limit`.
    pub async fn list(&self, limit: u32) -> Result<Vec<DeadLetter>, DeadLettersError> {
        let mut walk = self.walk().await?.at_most(limit);
        let mut letters = vec![];
        while let Some(letter) = walk.next().await? {
            letters.push(letter);
        }
        walk.give_back().await?;
        Ok(letters)
    }

    /// The first of these, and leaves it there. Holds it and those before it meanwhile.
    pub async fn show(
        &self,
        which: &DeadLetterSelection,
    ) -> Result<Option<DeadLetter>, DeadLettersError> {
        let mut walk = self.walk().await?;
        let mut found = None;
        while found.is_none() {
            let Some(letter) = walk.next().await? else { break };
            found = Some(letter).filter(|letter| which.has(letter));
        }
        walk.give_back().await?;
        Ok(found)
    }

    /// Sends these to the ingest queue again, in order and at most `limit` of them; answers how many.
    ///
    /// Each is published through the default exchange, mandatory, and leaves the dead queue only once
    /// it is confirmed there. A connection that breaks between the two leaves it in both. Those that
    /// come (back) to the dead queue meanwhile are left alone.
    ///
    /// A message is as it was, without the marks of its failures, so that it has all its attempts
    /// before it. It stays persistent. Three things are not brought back: `expiration`, which would let
    /// it vanish before anybody has seen it, `CC`, whose queues had their copies, and a `user_id` that
    /// is not the own, which the broker refuses. Where it was published to an exchange the headers
    /// `x-belfry-exchange` and `x-belfry-routing-key` stay, from which [`Ingest`](super::Ingest) takes
    /// its pattern: to publish it to that exchange again would tell everybody else who is bound to it.
    pub async fn replay(
        &self,
        which: &DeadLetterSelection,
        limit: u32,
    ) -> Result<u32, DeadLettersError> {
        let mut walk = self.walk().await?;
        let publishing = self.publishing().await?;
        let mut replayed = 0;
        let end = loop {
            if replayed == limit {
                break Ok(());
            }
            let letter = match walk.next().await {
                Ok(Some(letter)) => letter,
                Ok(None) => break Ok(()),
                Err(lost) => break Err(lost.to_string()),
            };
            if !which.has(&letter) {
                continue;
            }
            if let Err(why) = self.send(&publishing, &letter).await {
                break Err(why.to_string());
            }
            // It is safe: to be in both queues is the worst that can become of it.
            replayed += 1;
            if let Err(lost) = walk.remove(&letter).await {
                break Err(lost.to_string());
            }
        };
        let given_back = walk.give_back().await.map_err(|lost| lost.to_string());
        end.and(given_back).map_err(|why| DeadLettersError::NotReplayed { replayed, why })?;
        Ok(replayed)
    }

    /// Deletes these; answers how many. Those that come meanwhile are left alone.
    pub async fn purge(&self, which: &DeadLetterSelection) -> Result<u32, DeadLettersError> {
        let mut walk = self.walk().await?;
        let mut deleted = 0;
        let end = loop {
            match walk.next().await {
                Ok(None) => break Ok(()),
                Ok(Some(letter)) if !which.has(&letter) => {}
                Ok(Some(letter)) => match walk.remove(&letter).await {
                    Ok(()) => deleted += 1,
                    Err(lost) => break Err(lost),
                },
                Err(lost) => break Err(lost),
            }
        };
        let done = end.and(walk.give_back().await);
        done.map_err(|lost| DeadLettersError::NotPurged { deleted, why: lost.to_string() })?;
        Ok(deleted)
    }

    /// Says goodbye to the broker, so that the last of what was done reaches it.
    pub async fn close(self) {
        self.errand.end().await;
    }

    async fn walk(&self) -> Result<Walk<'_>, DeadLettersError> {
        let patience = self.settings.confirm_timeout;
        let queue = self.topology.dead_queue();
        let channel = within(patience, self.errand.connection().create_channel()).await?;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declaring = channel.queue_declare(queue.into(), passive, FieldTable::default());
        let found = within(patience, declaring).await.map_err(|lost| match lost {
            Lost::Amqp(error) if is_refused(&error, &[AMQPSoftError::NOTFOUND]) => {
                DeadLettersError::NoQueue(queue.to_owned())
            }
            other => other.into(),
        })?;
        let (left, topology) = (found.message_count(), &self.topology);
        Ok(Walk { channel, topology, patience, left, seen: 0 })
    }

    async fn publishing(&self) -> Result<Channel, Lost> {
        let patience = self.settings.confirm_timeout;
        let channel = within(patience, self.errand.connection().create_channel()).await?;
        within(patience, channel.confirm_select(ConfirmSelectOptions::default())).await?;
        Ok(channel)
    }

    async fn send(&self, channel: &Channel, letter: &DeadLetter) -> Result<(), NotSent> {
        // A broker with an alarm would not hear of what is given back either.
        if self.errand.connection().status().blocked() {
            return Err(NotSent::Blocked);
        }
        let message = Outgoing {
            exchange: "",
            routing_key: self.topology.ingest_queue(),
            mandatory: true,
            properties: letter.as_it_was(self.settings.url.user()),
            body: letter.body(),
        };
        let patience = self.settings.confirm_timeout;
        let sending = async { verdict(&publish_one(channel, &message).await?.await?) };
        timeout(patience, sending).await.unwrap_or(Err(NotSent::NoConfirm(patience)))
    }
}

async fn within<T>(
    patience: Duration,
    work: impl Future<Output = lapin::Result<T>>,
) -> Result<T, Lost> {
    Ok(timeout(patience, work).await.map_err(|_| Lost::NoAnswer(patience))??)
}

/// A walk through the queue as long as it was at first. Dropped half-way, all that was not removed is in
/// the queue again when the connection ends.
struct Walk<'a> {
    channel: Channel,
    topology: &'a Topology,
    patience: Duration,
    /// So many may still be taken. What comes to the queue meanwhile may be what was just sent again.
    left: u32,
    seen: u32,
}

impl Walk<'_> {
    fn at_most(mut self, limit: u32) -> Self {
        self.left = self.left.min(limit);
        self
    }

    async fn next(&mut self) -> Result<Option<DeadLetter>, Lost> {
        if self.left == 0 {
            return Ok(None);
        }
        let queue = self.topology.dead_queue().into();
        let getting = self.channel.basic_get(queue, BasicGetOptions::default());
        let Some(got) = within(self.patience, getting).await? else { return Ok(None) };
        self.left -= 1;
        self.seen += 1;
        Ok(Some(DeadLetter::read(got.delivery, self.seen, self.topology.ingest_queue())))
    }

    /// Takes one out that was seen.
    async fn remove(&self, letter: &DeadLetter) -> Result<(), Lost> {
        let acking = self.channel.basic_ack(letter.tag(), BasicAckOptions::default());
        within(self.patience, acking).await
    }

    /// Puts back all that were not removed.
    async fn give_back(self) -> Result<(), Lost> {
        // Tag 0 stands for all that are not acknowledged, be there any or not.
        if self.seen > 0 {
            let all = BasicNackOptions { multiple: true, requeue: true };
            within(self.patience, self.channel.basic_nack(0, all)).await?;
        }
        // The answer to it shows that the broker has done what came before.
        within(self.patience, self.channel.close(200, "done".into())).await
    }
}
