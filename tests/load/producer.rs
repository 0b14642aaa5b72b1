//! An open-loop producer: it publishes at a fixed rate, independently of the server. Late events carry the time when
//! they were due, so that a delay counts as latency.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::anyhow;

use crate::clock;
use crate::events::Events;
use crate::figures::{float, whole};
use crate::publisher::Publisher;

const TICK: Duration = Duration::from_millis(1);

/// The times when events are due.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    /// The clock's time of the first event.
    pub(crate) begin: u64,
    /// Events per second.
    pub(crate) rate: f64,
    /// The number of the first event, and the number of events.
    pub(crate) first: u64,
    pub(crate) total: u64,
}

/// A producer on a thread of its own. Dropping this stops it.
#[derive(Debug)]
pub(crate) struct Producer {
    progress: Arc<Progress>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

#[derive(Debug, Default)]
struct Progress {
    sent: AtomicU64,
    stop: AtomicBool,
}

impl Schedule {
    /// The number of events that are due at a tick. Tick `n` is `n` ms after the begin.
    fn due(&self, tick: u64) -> u64 {
        let due = float(tick + 1) * self.rate * TICK.as_secs_f64();
        // Corrects rounding errors just below a whole number.
        whole(due + 1e-6).min(self.total)
    }

    fn time_of(&self, tick: u64) -> u64 {
        self.begin + tick * clock::nanos(TICK)
    }
}

impl Producer {
    /// Publishes events by the schedule.
    pub(crate) fn start(mut publisher: Publisher, mut events: Events, schedule: Schedule) -> Self {
        let progress = Arc::new(Progress::default());
        let shared = Arc::clone(&progress);
        let thread = thread::spawn(move || {
            let (mut tick, mut sent) = (0, 0);
            let mut body = Vec::new();
            while sent < schedule.total && !shared.stop.load(Relaxed) {
                let at = schedule.time_of(tick);
                thread::sleep(Duration::from_nanos(at.saturating_sub(clock::now())));
                // After a delay, publishes all events that are due at once.
                let now = clock::now();
                while schedule.time_of(tick) <= now {
                    for seq in sent..schedule.due(tick) {
                        body.clear();
                        events.write(&mut body, schedule.first + seq, schedule.time_of(tick));
                        publisher.push(&body);
                    }
                    sent = schedule.due(tick).max(sent);
                    tick += 1;
                    if publisher.pending() > 1 << 20 {
                        break;
                    }
                }
                publisher.flush()?;
                shared.sent.store(sent, Relaxed);
            }
            publisher.close()
        });
        Self { progress, thread: Some(thread) }
    }

    /// The number of published events.
    pub(crate) fn sent(&self) -> u64 {
        self.progress.sent.load(Relaxed)
    }

    /// Waits until all events are published, at most for `timeout`. Returns the number of published events.
    pub(crate) async fn finish(mut self, timeout: Duration) -> anyhow::Result<u64> {
        let deadline = tokio::time::Instant::now() + timeout;
        while let Some(thread) = &self.thread {
            if thread.is_finished() || tokio::time::Instant::now() > deadline {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.progress.stop.store(true, Relaxed);
        let thread = self.thread.take().expect("finish consumes the producer");
        tokio::task::spawn_blocking(move || thread.join())
            .await?
            .map_err(|_| anyhow!("the producer panicked"))??;
        Ok(self.sent())
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.progress.stop.store(true, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_spread_over_ticks() {
        let schedule = |rate, total| Schedule { begin: 0, rate, first: 0, total };
        let even = schedule(5_000.0, 12);
        assert_eq!([0, 1, 2, 3].map(|tick| even.due(tick)), [5, 10, 12, 12]);
        let slow = schedule(300.0, 10);
        assert_eq!([0, 2, 3, 9].map(|tick| slow.due(tick)), [0, 0, 1, 3]);
        assert_eq!(slow.time_of(3), 3_000_000);
    }
}
