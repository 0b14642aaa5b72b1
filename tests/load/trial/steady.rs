//! Events at a steady rate, and idle clients.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Trial;
use crate::clock;
use crate::events::{Events, Form};
use crate::figures::{float, ms_at, whole};
use crate::outcome::{Idle, Outcome};
use crate::producer::Producer;
use crate::schedule::{EventTiming, Schedule};
use crate::tally::Round;

/// The maximal time by which a producer may end late.
const PRODUCER_TIMEOUT: Duration = Duration::from_secs(30);

/// Events to publish at a steady rate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) form: Form,
    /// Events per second.
    pub(crate) rate: f64,
    pub(crate) timing: EventTiming,
    /// The time in which events are published before the measurement.
    pub(crate) warm_up: Duration,
    /// The time of the measurement.
    pub(crate) time: Duration,
}

impl Trial<'_> {
    /// Publishes events and waits for their delivery.
    pub(crate) async fn send(&mut self, load: Load) -> anyhow::Result<Outcome> {
        let [warm, measured] =
            [load.warm_up, load.time].map(|it| whole(it.as_secs_f64() * load.rate));
        let total = warm + measured;
        let publisher = self.publisher(load.form == Form::Store).await?;
        let round = Round::new(self.next, warm, total, u8::try_from(self.devices)?);
        self.fleet.begin(&round);
        let (counts, cut) = (self.counts(), self.fleet.counters.cut_off.load(Relaxed));
        let (rate, timing, first) = (load.rate, load.timing, self.next);
        let begin = clock::now() + clock::nanos(Duration::from_millis(50));
        let schedule = Schedule { begin, rate, first, total, timing };
        self.next += total;
        let events = Events::for_users(load.form, self.users);
        let producer = Producer::start(publisher, events, schedule);

        clock::until(begin + clock::nanos(load.warm_up)).await;
        let (before, polls) = (self.cpu_snapshot(), self.polls());
        clock::until(begin + clock::nanos(load.warm_up + load.time)).await;
        let (after, polls) = (self.cpu_snapshot(), self.polls() - polls);
        let queued = self.queue.depth().await?;
        let sent = producer.finish(PRODUCER_TIMEOUT).await?;
        let expected = (sent.events.max(warm) - warm) * self.devices;
        self.wait_for_events(&round, expected).await;

        let delivery = round.delivery_counts(total);
        let latency = self.fleet.take_latency();
        let (new, unread) = self.counts();
        let counts_missing = i64::try_from(new - counts.0)? - i64::try_from(unread - counts.1)?;
        self.server.must_run()?;
        Ok(Outcome {
            rate: load.rate,
            published_per_second: sent.per_second,
            publisher_p50_late_us: 1_000.0 * ms_at(&sent.lateness, 50.0),
            publisher_p99_late_us: 1_000.0 * ms_at(&sent.lateness, 99.0),
            delivered: delivery.delivered,
            lost: delivery.lost,
            duplicated: delivery.duplicated,
            counts_missing,
            cut_off: self.fleet.counters.cut_off.load(Relaxed) - cut,
            polls,
            p50_ms: ms_at(&latency, 50.0),
            p90_ms: ms_at(&latency, 90.0),
            p99_ms: ms_at(&latency, 99.0),
            p999_ms: ms_at(&latency, 99.9),
            max_ms: ms_at(&latency, 100.0),
            cost: before.cost_until(&after, measured),
            queued,
            rss: self.server.process().rss(),
            latency: Some(latency),
        })
    }

    /// Measures the cost of the clients while no events are sent.
    pub(crate) async fn idle(&self, time: Duration) -> Idle {
        let (process, polls, pings) = (self.server.process(), self.polls(), self.pings());
        let (cpu, begin) = (process.cpu(), Instant::now());
        sleep(time).await;
        let (cpu, seconds) = (process.cpu().since(cpu), begin.elapsed().as_secs_f64());
        Idle {
            cpu_us_per_second: float(cpu) / 1_000.0 / seconds,
            polls_per_second: float(self.polls() - polls) / seconds,
            pings_per_second: float(self.pings() - pings) / seconds,
        }
    }

    /// The received `notification:new` and `notification:unread_count` events so far.
    fn counts(&self) -> (u64, u64) {
        let counters = &self.fleet.counters;
        (counters.new.load(Relaxed), counters.unread.load(Relaxed))
    }

    fn polls(&self) -> u64 {
        self.fleet.counters.polls.load(Relaxed)
    }

    fn pings(&self) -> u64 {
        self.fleet.counters.pings.load(Relaxed)
    }
}
