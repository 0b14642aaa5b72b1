//! Many clients on a few threads.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use belfry_tests::tokens::Key;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::client::{ClientBehaviour, run_client};
use crate::device::{Device, Recorder, Transport};
use crate::outages::UnstableClient;
use crate::own_thread::OwnThread;
use crate::random::Random;
use crate::tally::{CatchUp, Counters, Latency, Received, Round, no_latency};

/// The number of concurrent connection attempts. More would only queue in front of the server.
const MAX_CONNECTING: usize = 256;

/// Clients per source address, below the 28,233 ephemeral ports of Linux.
pub(crate) const PER_ADDRESS: u64 = 20_000;

/// Clients per source address, if they connect again and again. A closed connection keeps its port for a minute
/// (`TIME_WAIT`), so each client needs several ports.
pub(crate) const PER_ADDRESS_RECONNECTING: u64 = 2_000;

/// Clients, and the way in which they connect.
#[derive(Debug, Clone)]
pub(crate) struct ClientGroup {
    pub(crate) server: SocketAddr,
    pub(crate) secret: String,
    pub(crate) transport: Transport,
    pub(crate) connections: u64,
    /// Connection `n` belongs to the user `u<n / devices>`.
    pub(crate) devices: u64,
    /// The number of the first user.
    pub(crate) first_user: u64,
    pub(crate) pace: ConnectPace,
    pub(crate) threads: u64,
    pub(crate) behaviour: ClientBehaviour,
    /// Clients per source address.
    pub(crate) per_address: u64,
    /// If true, the client threads yield to all others.
    pub(crate) yielding: bool,
}

/// How fast the clients of a group connect.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ConnectPace {
    /// This number per second, of which at most [`MAX_CONNECTING`] at the same time.
    PerSecond(f64),
    /// This number at the same time: the next client connects when one of them has signed in.
    AtOnce(u64),
}

/// Connected clients. Dropping this closes all connections.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) counters: Arc<Counters>,
    pub(crate) connections: u64,
    /// Cancelled to begin the outages of clients that have outages.
    pub(crate) begin_outages: CancellationToken,
    received: Vec<Arc<Mutex<Received>>>,
    threads: Vec<OwnThread>,
}

impl Fleet {
    /// A fleet without clients.
    pub(crate) fn none() -> Self {
        Self {
            counters: Arc::default(),
            connections: 0,
            begin_outages: CancellationToken::new(),
            received: Vec::new(),
            threads: Vec::new(),
        }
    }

    /// Starts the clients at the group's pace.
    pub(crate) fn start(group: &ClientGroup) -> anyhow::Result<Self> {
        let mut fleet = Self { connections: group.connections, ..Self::none() };
        let round = Round::none();
        for index in 0..group.threads {
            let received = Arc::new(Mutex::new(Received::of(Arc::clone(&round))));
            let recorder = Recorder {
                counters: Arc::clone(&fleet.counters),
                received: Arc::clone(&received),
                resume: None,
                online_since: 0,
            };
            fleet.received.push(received);
            let (group, begin_outages) = (group.clone(), fleet.begin_outages.clone());
            let name = format!("clients-{index}");
            let yielding = group.yielding;
            let work = move || connect_share(group, index, recorder, begin_outages);
            let thread = if yielding {
                OwnThread::start_yielding(name, work)?
            } else {
                OwnThread::start(name, work)?
            };
            fleet.threads.push(thread);
        }
        Ok(fleet)
    }

    /// Waits until all clients are signed in. Fails if none signs in for 30 s.
    pub(crate) async fn wait_until_connected(&self) -> anyhow::Result<()> {
        let (mut most, mut since) = (0, Instant::now());
        loop {
            let connected = self.connected();
            if connected >= self.connections {
                return Ok(());
            }
            if connected > most {
                (most, since) = (connected, Instant::now());
            }
            ensure!(
                since.elapsed() < Duration::from_secs(30),
                "only {connected} of {} clients are signed in, {} attempts failed, last error: {}",
                self.connections,
                self.counters.failed.load(Relaxed),
                self.counters.last_error()
            );
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The number of signed-in clients.
    pub(crate) fn connected(&self) -> u64 {
        u64::try_from(self.counters.connected.load(Relaxed)).unwrap_or(0)
    }

    /// Records only the events of this round from now on.
    pub(crate) fn begin(&self, round: &Arc<Round>) {
        for received in &self.received {
            *received.lock().unwrap_or_else(PoisonError::into_inner) =
                Received::of(Arc::clone(round));
        }
    }

    /// The latencies since the round began or since the last call.
    pub(crate) fn take_latency(&self) -> Latency {
        let mut all = no_latency();
        for received in &self.received {
            let mut received = received.lock().unwrap_or_else(PoisonError::into_inner);
            all.add(&received.latency).expect("all histograms have the same bounds");
            received.latency.reset();
        }
        all
    }

    /// The delivery times of clients with outages, since the round began or since the last call.
    pub(crate) fn take_catch_up(&self) -> CatchUp {
        let mut all = CatchUp::default();
        for received in &self.received {
            let mut received = received.lock().unwrap_or_else(PoisonError::into_inner);
            all.add(&received.catch_up.take().unwrap_or_default());
        }
        all
    }
}

/// Starts this thread's share of the clients at the group's pace. Never returns.
async fn connect_share(
    group: ClientGroup,
    thread: u64,
    recorder: Recorder,
    begin_outages: CancellationToken,
) {
    let key = Key::hs256(&group.secret);
    let (rate, connecting) = match group.pace {
        ConnectPace::PerSecond(rate) => (rate.max(0.1), MAX_CONNECTING),
        ConnectPace::AtOnce(count) => (
            f64::INFINITY,
            usize::try_from(count.div_ceil(group.threads)).unwrap_or(MAX_CONNECTING),
        ),
    };
    let connecting = Arc::new(Semaphore::new(connecting));
    let begin = Instant::now();
    for number in (thread..group.connections).step_by(usize::try_from(group.threads).unwrap_or(1)) {
        let pace = Duration::from_secs(number).div_f64(rate);
        sleep_until(begin + pace).await;
        let user = group.first_user + number / group.devices.max(1);
        let device = Device {
            server: group.server,
            from: source(number, group.per_address),
            token: key.token(&format!("u{user}")).sign().into(),
        };
        let random = Random::seeded(number);
        let (connecting, recorder) = (Arc::clone(&connecting), recorder.clone());
        let (transport, behaviour) = (group.transport, group.behaviour);
        if let ClientBehaviour::Outages(outages) = behaviour {
            let (connections, begin) = (group.connections, begin_outages.clone());
            let client = UnstableClient {
                device,
                transport,
                outages,
                number,
                connections,
                begin,
                random,
                recorder,
            };
            tokio::spawn(client.run(connecting));
            continue;
        }
        tokio::spawn(run_client(device, transport, behaviour, random, connecting, recorder));
    }
    std::future::pending::<()>().await;
}

/// The source address of a client: `127.0.0.2` for the first `per_address` clients, `127.0.0.3` for the next ones …
pub(crate) fn source(number: u64, per_address: u64) -> Ipv4Addr {
    let [.., third, fourth] = (2 + number / per_address.max(1)).to_be_bytes();
    Ipv4Addr::new(127, 0, third, fourth)
}

/// Raises the limit of open files for this number of sockets. The servers inherit the limit.
pub(crate) fn allow_files(sockets: u64) -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    // Far more than the tool's other connections and pipes need.
    let needed = sockets + 1_000;
    let now = getrlimit(Resource::Nofile);
    if now.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let maximum = now.maximum.map(|maximum| maximum.max(needed));
    setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum }).with_context(|| {
        format!("cannot raise the limit of open files to {needed}: raise `ulimit -Hn`")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_spread_over_source_addresses() {
        assert_eq!(source(0, PER_ADDRESS), Ipv4Addr::new(127, 0, 0, 2));
        assert_eq!(source(19_999, PER_ADDRESS), Ipv4Addr::new(127, 0, 0, 2));
        assert_eq!(source(20_000, PER_ADDRESS), Ipv4Addr::new(127, 0, 0, 3));
        assert_eq!(source(300, 1), Ipv4Addr::new(127, 0, 1, 46));
    }
}
