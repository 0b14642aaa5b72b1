//! An open-loop producer: it publishes by a schedule, independently of the server. Each event contains the
//! time when it was due, so that a delay of the producer counts as latency.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{fs, io};

use anyhow::anyhow;

use crate::clock;
use crate::events::Events;
use crate::figures::float;
use crate::publisher::Publisher;
use crate::schedule::{Arrivals, Schedule};
use crate::tally::{Latency, no_latency};

/// No further event is added to a write that has this size in bytes.
const MAX_WRITE: usize = 1 << 20;

/// A producer on a thread of its own. Dropping this stops it.
#[derive(Debug)]
pub(crate) struct Producer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<anyhow::Result<Published>>>,
}

/// The result of a producer.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) events: u64,
    /// Events per second from the first write to the last one.
    pub(crate) per_second: f64,
    /// The time from when an event was due until its write returned.
    pub(crate) lateness: Latency,
}

impl Producer {
    /// Publishes events by the schedule.
    pub(crate) fn start(mut publisher: Publisher, mut events: Events, schedule: Schedule) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            if schedule.timing.arrivals == Arrivals::Poisson
                && let Err(error) = reduce_timer_slack()
            {
                eprintln!("the producer's timers are inexact: {error}");
            }
            let sent = publish(&mut publisher, &mut events, schedule, &stopped)?;
            publisher.close()?;
            anyhow::Ok(sent)
        });
        Self { stop, thread: Some(thread) }
    }

    /// Waits until all events are published, at most for `timeout`.
    pub(crate) async fn finish(mut self, timeout: Duration) -> anyhow::Result<Published> {
        let deadline = tokio::time::Instant::now() + timeout;
        while let Some(thread) = &self.thread {
            if thread.is_finished() || tokio::time::Instant::now() > deadline {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.stop.store(true, Relaxed);
        let thread = self.thread.take().expect("finish consumes the producer");
        tokio::task::spawn_blocking(move || thread.join())
            .await?
            .map_err(|_| anyhow!("the producer panicked"))?
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

/// Publishes events until the last one or until the producer is stopped.
fn publish(
    publisher: &mut Publisher,
    events: &mut Events,
    schedule: Schedule,
    stopped: &AtomicBool,
) -> io::Result<Published> {
    let times = schedule.times();
    let mut sent = Published { events: 0, per_second: f64::NAN, lateness: no_latency() };
    let mut body = Vec::new();
    let (mut next, mut first_write, mut last_write) = (0, 0, 0);
    while next < times.len() && !stopped.load(Relaxed) {
        let due = times[next];
        thread::sleep(Duration::from_nanos(due.saturating_sub(clock::now())));
        // The events of late ticks share a write. Each event of a Poisson process has its own, even if it is late.
        let until = match schedule.timing.arrivals {
            Arrivals::Ticks => clock::now().max(due),
            Arrivals::Poisson => due,
        };
        let first_of_write = next;
        while next < times.len() && times[next] <= until && publisher.pending() < MAX_WRITE {
            body.clear();
            events.write(&mut body, schedule.first + next as u64, times[next]);
            publisher.push(&body);
            next += 1;
        }
        publisher.flush()?;
        last_write = clock::now();
        if first_of_write == 0 {
            first_write = last_write;
        }
        for due in &times[first_of_write..next] {
            sent.lateness.saturating_record(last_write.saturating_sub(*due) / 1_000);
        }
        sent.events = next as u64;
    }
    sent.per_second = float(sent.events) / (float(last_write - first_write) / 1e9);
    Ok(sent)
}

/// Sets the timer slack of this thread to 1 ns, so that its sleeps end within some microseconds. By default,
/// the kernel delays their end by up to 50 µs to save wake-ups (prctl(2), `PR_SET_TIMERSLACK`).
fn reduce_timer_slack() -> io::Result<()> {
    let this = fs::read_link("/proc/thread-self")?;
    let thread = this.file_name().ok_or(io::ErrorKind::NotFound)?;
    let slack = std::path::Path::new("/proc").join(thread).join("timerslack_ns");
    fs::write(slack, "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleep_with_reduced_slack_ends_on_time() {
        let slept = thread::spawn(|| {
            reduce_timer_slack().unwrap();
            let shortest = (0..100).map(|_| {
                let begin = std::time::Instant::now();
                thread::sleep(Duration::from_micros(100));
                begin.elapsed()
            });
            shortest.min()
        });
        let shortest = slept.join().unwrap().unwrap();
        assert!(shortest < Duration::from_micros(145), "{shortest:?}");
    }
}
