use std::error::Error;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use belfry_application::ports::Clock;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::handling::Handling;
use super::inflow::Inflow;
use super::letters::{Letter, Letters, Reason};
use super::message::{Envelope, Incoming};
use super::sieve::{Held, Round, Sieve};
use crate::amqp::{
    AmqpSettings, Link, Lost, Pauses, Publisher, Role, Topology, Up, keep, measures,
};

/// How the ingest queue is consumed.
#[derive(Debug, Clone)]
pub struct IngestSettings {
    /// How many messages the broker hands out ahead of their acknowledgement. With the size of the
    /// messages it bounds the memory that they take.
    pub prefetch: u16,
    /// How many are done together at most.
    pub batch: usize,
    /// How long the first of a batch waits for others.
    pub linger: Duration,
    /// How long a message that is done may wait for its acknowledgement, to be acknowledged together
    /// with others. A connection that is lost within it brings those messages once more.
    pub acknowledge_after: Duration,
    /// How often a message may fail, while others work, before it goes to the dead queue.
    pub max_attempts: u32,
    /// How often a message may come too early, before what it is about is there. With the pauses of
    /// the retry queues it says how far two messages may overtake each other: after 36 seconds a
    /// sender's mistake is likelier.
    pub max_early_attempts: u32,
    /// The pause after a failure of everything; each next one is twice as long…
    pub shortest_pause: Duration,
    /// …up to this.
    pub longest_pause: Duration,
}

impl Default for IngestSettings {
    /// For storing: a transaction costs more than what is in it, and what is stored is acknowledged at
    /// once.
    fn default() -> Self {
        Self {
            prefetch: 1_000,
            batch: 500,
            linger: Duration::from_millis(2),
            acknowledge_after: Duration::ZERO,
            max_attempts: 6,
            max_early_attempts: 4,
            shortest_pause: Duration::from_millis(50),
            longest_pause: Duration::from_secs(5),
        }
    }
}

impl IngestSettings {
    /// For forwarding: each message goes on at once, and acknowledgements are gathered.
    pub fn forwarding() -> Self {
        Self {
            prefetch: 1_000,
            linger: Duration::ZERO,
            acknowledge_after: Duration::from_millis(50),
            ..Self::default()
        }
    }
}

/// Consumes the ingest queue and does what its messages ask for.
pub struct Ingest<H> {
    amqp: AmqpSettings,
    topology: Topology,
    settings: IngestSettings,
    letters: Letters,
    handling: H,
}

impl<H: Handling> Ingest<H> {
    /// Consumes from that broker. What fails is published by `publisher` to the retry queues and the
    /// dead queue.
    pub fn new(
        amqp: AmqpSettings,
        topology: Topology,
        settings: IngestSettings,
        publisher: &Publisher,
        clock: Arc<dyn Clock>,
        handling: H,
    ) -> Self {
        let letters = Letters::new(publisher, topology.clone(), clock);
        Self { amqp, topology, settings, letters, handling }
    }

    /// Consumes until told to stop. What is being done then is finished and acknowledged; what only
    /// waits goes back to the queue.
    ///
    /// A queue that is deleted takes with it what the broker has handed out of it. That is in hand here
    /// and nowhere else, so it is done all the same, and the queue is declared and consumed again
    /// meanwhile. Only what is still in hand when this connection is lost too, or at a stop, goes with
    /// its queue.
    pub async fn run(&self, stop: CancellationToken) {
        keep(self, &self.amqp, &stop).await;
    }
}

impl<H: Handling> Role for Ingest<H> {
    const NAME: &'static str = "ingest";

    async fn serve(&self, link: &Arc<Link>, up: &Up, stop: &CancellationToken) -> Result<(), Lost> {
        let IngestSettings { batch, linger, acknowledge_after, .. } = self.settings;
        let (channel, consumer) = link.answered(self.attach(link)).await?;
        let mut inflow = Inflow::new(consumer);
        up.now();

        let mut work = Work::new(self, link, channel);
        let mut stopped = pin!(stop.cancelled());
        let mut gone = pin!(link.gone());
        let mut due = pin!(sleep_until(Instant::now()));
        // How long to wait before what is held is tried again.
        let mut pause = None;
        loop {
            if inflow.has_ended() {
                warn!(held = work.held(), "the ingest queue is gone; it is declared once more");
                metrics::counter!(measures::OUTAGES, "role" => Self::NAME).increment(1);
                let (channel, consumer) = link.answered(self.attach(link)).await?;
                work.go_on_by(channel).await?;
                inflow.go_on_with(consumer);
            }
            if let Some(pause) = pause {
                tokio::select! {
                    biased;
                    () = &mut stopped => return Ok(()),
                    () = tokio::time::sleep(pause) => {}
                }
                // All that is held is settled before more is waited for. What is there is tried along
                // with it: only so it shows whether one message is at fault or the store.
                work.take(inflow.there(batch.saturating_sub(work.held()))?);
            } else {
                tokio::select! {
                    biased;
                    () = &mut stopped => return work.acknowledge_all().await,
                    () = &mut due, if work.owes_acknowledgement() => work.acknowledge_all().await?,
                    news = inflow.some(batch, linger) => {
                        if !work.owes_acknowledgement() {
                            due.as_mut().reset(Instant::now() + acknowledge_after);
                        }
                        work.take(news?);
                    }
                    () = &mut gone => return Err(Lost::Closed),
                }
            }
            pause = work.round().await?;
        }
    }
}

impl<H: Handling> Ingest<H> {
    /// Declares what is needed and consumes by a channel of its own.
    async fn attach(&self, link: &Link) -> Result<(Channel, Consumer), Lost> {
        self.topology.declare_ingest(link).await?;
        self.topology.declare_retry_and_dead(link).await?;
        let channel = link.create_channel().await?;
        // None would be no bound at all.
        let prefetch = self.settings.prefetch.max(1);
        channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
        let queue = self.topology.ingest_queue().into();
        let options = BasicConsumeOptions::default();
        let consumer =
            channel.basic_consume(queue, "".into(), options, FieldTable::default()).await?;
        Ok((channel, consumer))
    }
}

/// What one connection has in hand.
struct Work<'a, H: Handling> {
    ingest: &'a Ingest<H>,
    link: &'a Link,
    /// Where deliveries are acknowledged, as long as they came by it.
    channel: Channel,
    sieve: Sieve<Delivery, H::Order>,
    letters: Vec<Letter>,
    /// Done with, and not acknowledged yet.
    settled: Vec<u64>,
    pauses: Pauses,
    /// Whether it was said already that all is held up.
    said: bool,
}

impl<'a, H: Handling> Work<'a, H> {
    fn new(ingest: &'a Ingest<H>, link: &'a Link, channel: Channel) -> Self {
        let IngestSettings { shortest_pause, longest_pause, .. } = ingest.settings;
        Self {
            ingest,
            link,
            channel,
            sieve: Sieve::default(),
            letters: Vec::new(),
            settled: Vec::new(),
            pauses: Pauses::between(shortest_pause, longest_pause),
            said: false,
        }
    }

    /// Takes another channel in the place of one whose queue is gone. What came by that one is not
    /// acknowledged by this: tags count from one in each channel. Nor can the old one stay. RabbitMQ
    /// would take an acknowledgement of what the old queue handed out for one of the new queue's, which
    /// counts from one as well, and it closes a channel in which something is never acknowledged.
    async fn go_on_by(&mut self, channel: Channel) -> Result<(), Lost> {
        self.acknowledge_each().await?;
        let gone = std::mem::replace(&mut self.channel, channel);
        self.link.answered(gone.close(200, "its queue is gone".into())).await?;
        Ok(())
    }

    /// Whether anything is done with that the broker does not know of yet.
    fn owes_acknowledgement(&self) -> bool {
        !self.settled.is_empty()
    }

    fn held(&self) -> usize {
        self.sieve.len() + self.letters.len()
    }

    fn take(&mut self, news: Vec<Delivery>) {
        for delivery in news {
            match self.read(&delivery) {
                Ok((order, trace)) => self.sieve.take(Held::new(delivery, order, trace)),
                Err(why) => {
                    let reason = Reason::from(&why);
                    self.letters.push(Letter::dead(delivery, reason, &why));
                }
            }
        }
    }

    fn read(&self, delivery: &Delivery) -> Result<Read<H>, super::Unreadable> {
        let incoming = Incoming::from(delivery);
        let envelope = Envelope::open(&incoming, self.ingest.topology.ingest_queue())?;
        let order = self.ingest.handling.read(&envelope)?;
        Ok((order, envelope.trace))
    }

    /// Tries what is held, and answers how long to wait before the next try if anything still is.
    async fn round(&mut self) -> Result<Option<Duration>, Lost> {
        let mut works = true;
        if !self.sieve.is_empty() {
            let round = self.sieve.round(&self.ingest.handling).await;
            works = round.works;
            self.settle(round);
        }
        works &= self.post().await;
        if works {
            self.pauses.reset();
        }
        if self.held() > 0 {
            self.acknowledge_each().await?;
            return Ok(Some(self.pauses.next()));
        }
        // So many that the broker never waits for it before it hands out more.
        let many = usize::from(self.ingest.settings.prefetch / 4).max(1);
        if self.ingest.settings.acknowledge_after.is_zero() || self.settled.len() >= many {
            self.acknowledge_all().await?;
        }
        Ok(None)
    }

    fn settle(&mut self, round: Round<Delivery>) {
        let Round { done, refused, early, failed, held_by, works } = round;
        let IngestSettings { max_attempts, max_early_attempts, .. } = self.ingest.settings;
        count("done", done.len());
        self.settled.extend(done.iter().filter_map(owed));
        for (delivery, error) in refused {
            self.letters.push(Letter::dead(delivery, Reason::Rejected, &error));
        }
        for (delivery, error) in early {
            self.letters.push(Letter::early(delivery, &error, max_early_attempts));
        }
        for (delivery, error) in failed {
            self.letters.push(Letter::failed(delivery, &error, max_attempts));
        }
        if works && self.said {
            self.said = false;
            info!("messages are done again");
        }
        if let Some(error) = held_by.filter(|_| !works && !self.said) {
            self.said = true;
            let error = &error as &dyn Error;
            warn!(held = self.sieve.len(), error, "messages wait until they can be done");
        }
    }

    /// Sends what failed to its queue; whether all of it is safe there.
    async fn post(&mut self) -> bool {
        if self.letters.is_empty() {
            return true;
        }
        let (safe, waiting, why) =
            self.ingest.letters.send(std::mem::take(&mut self.letters)).await;
        self.letters = waiting;
        if let Some(error) = why {
            let error = &error as &dyn Error;
            warn!(messages = self.letters.len(), error, "not in the retry or dead queue yet");
        }
        let (dead, again): (Vec<_>, Vec<_>) = safe.iter().partition(|letter| letter.is_dead());
        count("dead", dead.len());
        count("retry", again.len());
        if let Some(Letter { reason, error, .. }) = dead.first() {
            let reason = reason.as_str();
            warn!(messages = dead.len(), reason, error, "to the dead queue; the first says why");
        }
        if let Some(Letter { error, .. }) = again.first() {
            warn!(messages = again.len(), error, "to a retry queue; the first says why");
        }
        self.settled.extend(safe.iter().filter_map(|letter| owed(&letter.delivery)));
        self.letters.is_empty()
    }

    /// Acknowledges all that is done with; only while nothing is held. Up to the newest of those and
    /// not of all that came: that one may be acknowledged already, and RabbitMQ closes the channel
    /// on a tag that it does not know (any more).
    async fn acknowledge_all(&mut self) -> Result<(), Lost> {
        if let Some(newest) = self.settled.drain(..).max() {
            let all = BasicAckOptions { multiple: true };
            self.link.answered(self.channel.basic_ack(newest, all)).await?;
        }
        Ok(())
    }

    async fn acknowledge_each(&mut self) -> Result<(), Lost> {
        for tag in self.settled.drain(..) {
            let this = BasicAckOptions::default();
            self.link.answered(self.channel.basic_ack(tag, this)).await?;
        }
        Ok(())
    }
}

/// What a message asks for, and the trace it is a part of.
type Read<H> = (<H as Handling>::Order, Option<belfry_application::trace::TraceParent>);

/// The tag to acknowledge a delivery by; none where the channel that it came by is closed.
fn owed(delivery: &Delivery) -> Option<u64> {
    (!delivery.acker.poisoned()).then_some(delivery.delivery_tag)
}

fn count(outcome: &'static str, messages: usize) {
    metrics::counter!(measures::INGEST_MESSAGES, "outcome" => outcome).increment(messages as u64);
}
