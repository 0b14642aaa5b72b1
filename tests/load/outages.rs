//! Clients whose connections are cut at intervals, and that catch up when they reconnect.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::client::back_off;
use crate::clock;
use crate::device::{Connection, Device, Recorder, Transport};
use crate::figures::float;
use crate::random::Random;

/// The outages of each client of a fleet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outages {
    /// The time from the begin of one outage to the begin of the next one.
    pub(crate) interval: Duration,
    /// How long a client is offline.
    pub(crate) down: Duration,
    /// If true, all clients are cut at the same time. Otherwise they are cut in turn.
    pub(crate) together: bool,
}

impl Outages {
    /// The time from the start of the outages to the first outage of this client.
    fn first(self, number: u64, connections: u64) -> Duration {
        if self.together {
            return self.interval;
        }
        self.interval.mul_f64(float(number) / float(connections.max(1)))
    }
}

/// A client with outages.
#[derive(Debug)]
pub(crate) struct UnstableClient {
    pub(crate) device: Device,
    pub(crate) transport: Transport,
    pub(crate) outages: Outages,
    /// The number of this client, from 0 to `connections - 1`.
    pub(crate) number: u64,
    /// The number of all clients.
    pub(crate) connections: u64,
    /// Cancelled when the outages begin.
    pub(crate) begin: CancellationToken,
    pub(crate) random: Random,
    pub(crate) recorder: Recorder,
}

impl UnstableClient {
    /// Connects, and cuts the connection at intervals. Never returns.
    ///
    /// A cut closes the TCP connection without a Socket.IO packet. The client connects again at the end of
    /// the outage.
    pub(crate) async fn run(mut self, connecting: Arc<Semaphore>) {
        self.recorder.resume = Some(Arc::default());
        let permit = connecting.acquire().await.ok();
        let mut connection = self.connect().await;
        drop(permit);
        let begin = self.begin.clone();
        while begin.run_until_cancelled(connection.listen(&self.recorder)).await.is_some() {
            connection = self.reconnect().await;
        }
        let mut cut_at = Instant::now() + self.outages.first(self.number, self.connections);
        loop {
            let remaining = cut_at.saturating_duration_since(Instant::now());
            if !connection.listen_for(remaining, &self.recorder).await {
                connection = self.reconnect().await;
                continue;
            }
            drop(connection);
            self.recorder.counters.record_disconnect();
            cut_at += self.outages.interval;
            sleep(self.outages.down).await;
            connection = self.connect().await;
        }
    }

    /// Connects again after the server has closed the connection.
    async fn reconnect(&mut self) -> Connection {
        self.recorder.counters.record_disconnect();
        self.recorder.counters.cut_off.fetch_add(1, Relaxed);
        sleep(back_off(0, &mut self.random)).await;
        self.connect().await
    }

    /// Connects, with retries.
    async fn connect(&mut self) -> Connection {
        self.recorder.online_since = clock::now();
        let mut failures = 0;
        loop {
            if let Ok(connection) = self.device.sign_in(self.transport, &self.recorder).await {
                return connection;
            }
            sleep(back_off(failures, &mut self.random)).await;
            failures += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outages_are_spread_over_the_interval() {
        let seconds = Duration::from_secs;
        let outages = Outages { interval: seconds(15), down: seconds(2), together: false };
        assert_eq!([0, 100, 200].map(|n| outages.first(n, 300).as_secs()), [0, 5, 10]);
        let together = Outages { together: true, ..outages };
        assert_eq!([0, 100, 200].map(|n| together.first(n, 300).as_secs()), [15, 15, 15]);
    }
}
