//! Many clients on a few threads.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use belfry_tests::tokens::Key;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until};

use crate::device::{Device, Ears, Transport};
use crate::own_thread::OwnThread;
use crate::random::Random;
use crate::tally::{Counters, Latency, Received, Round, no_latency};

/// How many may be on their way in at once: more would only queue before the server.
const MAX_CONNECTING: usize = 256;

/// Clients for one source address, below the 28,233 ports that Linux hands out.
pub(crate) const PER_ADDRESS: u64 = 20_000;

/// Which clients connect, and how.
#[derive(Debug, Clone)]
pub(crate) struct ClientGroup {
    pub(crate) server: SocketAddr,
    pub(crate) secret: String,
    pub(crate) transport: Transport,
    pub(crate) connections: u64,
    /// Connection `n` is one of the user `u<n / devices>`.
    pub(crate) devices: u64,
    /// The number of the first user.
    pub(crate) first_user: u64,
    /// Connections begun per second.
    pub(crate) rate: f64,
    pub(crate) threads: u64,
    pub(crate) life: Life,
    /// Clients that share a source address.
    pub(crate) per_address: u64,
    /// Whether their threads give way to all others.
    pub(crate) aside: bool,
}

/// What a client does once it is signed in.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Life {
    /// Listens until it is cut off.
    Stay,
    /// Comes back when it is cut off, as socket.io-client does: after 1 s, doubling up to 5 s, each
    /// time half of it more or less. To that server, where there is one.
    ComeBack(Option<SocketAddr>),
    /// Leaves after about that time and comes again.
    Churn(Duration),
}

/// Connected clients. Dropping it cuts all connections.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) counters: Arc<Counters>,
    pub(crate) connections: u64,
    heard: Vec<Arc<Mutex<Received>>>,
    threads: Vec<OwnThread>,
}

impl Fleet {
    /// Has them connect, one after the other.
    pub(crate) fn gather(group: &ClientGroup) -> anyhow::Result<Self> {
        let mut fleet = Self {
            counters: Arc::default(),
            connections: group.connections,
            heard: Vec::new(),
            threads: Vec::new(),
        };
        let round = Round::none();
        for index in 0..group.threads {
            let heard = Arc::new(Mutex::new(Received::of(Arc::clone(&round))));
            let ears = Ears { counters: Arc::clone(&fleet.counters), heard: Arc::clone(&heard) };
            fleet.heard.push(heard);
            let group = group.clone();
            let name = format!("clients-{index}");
            let aside = group.aside;
            let work = move || connect_share(group, index, ears);
            let thread = if aside {
                OwnThread::start_aside(name, work)?
            } else {
                OwnThread::start(name, work)?
            };
            fleet.threads.push(thread);
        }
        Ok(fleet)
    }

    /// Waits until all are signed in.
    pub(crate) async fn complete(&self) -> anyhow::Result<()> {
        let mut before = (0, Instant::now());
        loop {
            let present = self.present();
            if present >= self.connections {
                return Ok(());
            }
            if present > before.0 {
                before = (present, Instant::now());
            }
            ensure!(
                before.1.elapsed() < Duration::from_secs(30),
                "only {present} of {} clients are signed in, {} tries failed, the last one: {}",
                self.connections,
                self.counters.failed.load(Relaxed),
                self.counters.why()
            );
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// How many are signed in.
    pub(crate) fn present(&self) -> u64 {
        u64::try_from(self.counters.present.load(Relaxed)).unwrap_or(0)
    }

    /// From now on the events of this round count, and no others.
    pub(crate) fn begin(&self, round: &Arc<Round>) {
        for heard in &self.heard {
            *heard.lock().unwrap_or_else(PoisonError::into_inner) = Received::of(Arc::clone(round));
        }
    }

    /// The latencies since the round began or they were last taken.
    pub(crate) fn take_latency(&self) -> Latency {
        let mut all = no_latency();
        for heard in &self.heard {
            let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
            all.add(&heard.latency).expect("all have the same bounds");
            heard.latency.reset();
        }
        all
    }
}

/// Starts this thread's share of the clients at the group's rate, and waits for good.
async fn connect_share(group: ClientGroup, thread: u64, ears: Ears) {
    let key = Key::hs256(&group.secret);
    let connecting = Arc::new(Semaphore::new(MAX_CONNECTING));
    let begin = Instant::now();
    for number in (thread..group.connections).step_by(usize::try_from(group.threads).unwrap_or(1)) {
        let pace = Duration::from_secs(number).div_f64(group.rate.max(0.1));
        sleep_until(begin + pace).await;
        let user = group.first_user + number / group.devices.max(1);
        let device = Device {
            server: group.server,
            from: source(number, group.per_address),
            token: key.token(&format!("u{user}")).sign().into(),
        };
        let random = Random::seeded(number);
        let (connecting, ears) = (Arc::clone(&connecting), ears.clone());
        tokio::spawn(live(device, group.transport, group.life, random, connecting, ears));
    }
    std::future::pending::<()>().await;
}

/// The address that a client connects from: `127.0.0.2`, `127.0.0.3` …
pub(crate) fn source(number: u64, per_address: u64) -> Ipv4Addr {
    let [.., third, fourth] = (2 + number / per_address.max(1)).to_be_bytes();
    Ipv4Addr::new(127, 0, third, fourth)
}

async fn live(
    mut device: Device,
    transport: Transport,
    life: Life,
    mut random: Random,
    connecting: Arc<Semaphore>,
    ears: Ears,
) {
    let (mut fails, mut is_limited) = (0, true);
    loop {
        let permit = if is_limited { connecting.acquire().await.ok() } else { None };
        let connection = device.sign_in(transport, &ears).await;
        drop(permit);
        let Ok(mut connection) = connection else {
            sleep(back_off(fails, &mut random)).await;
            fails += 1;
            continue;
        };
        fails = 0;
        let stays = match life {
            Life::Stay | Life::ComeBack(_) => {
                let _ = connection.listen(&ears).await;
                false
            }
            Life::Churn(about) => {
                let stay = jittered(about, &mut random);
                connection.listen_for(stay, &ears).await
            }
        };
        ears.counters.went();
        if stays {
            connection.leave().await;
            continue;
        }
        ears.counters.cut.fetch_add(1, Relaxed);
        match life {
            Life::Stay => return,
            Life::ComeBack(to) => {
                device.server = to.unwrap_or(device.server);
                // Nobody has them wait for each other now.
                is_limited = false;
            }
            Life::Churn(_) => {}
        }
        sleep(back_off(0, &mut random)).await;
        fails = 1;
    }
}

/// socket.io-client's `reconnectionDelay`, `reconnectionDelayMax` and `randomizationFactor`.
fn back_off(fails: u32, random: &mut Random) -> Duration {
    let doubled = Duration::from_secs(1) * 2_u32.pow(fails.min(4));
    jittered(doubled, random).min(Duration::from_secs(5))
}

/// That time, or up to half of it more or less.
fn jittered(time: Duration, random: &mut Random) -> Duration {
    let percent = u32::try_from(50 + random.below(101)).unwrap_or(100);
    time * percent / 100
}

/// Raises the limit of open files to what that many sockets need, which the servers then inherit.
pub(crate) fn allow_files(sockets: u64) -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    // Its own connections, threads and pipes are some dozens.
    let needed = sockets + 1_000;
    let now = getrlimit(Resource::Nofile);
    if now.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let maximum = now.maximum.map(|maximum| maximum.max(needed));
    setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum })
        .with_context(|| format!("{needed} open files are not allowed: raise `ulimit -Hn`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_that_come_back_wait_longer_each_time_up_to_five_seconds() {
        let mut random = Random::seeded(1);
        for (fails, least, most) in [(0, 500, 1_500), (1, 1_000, 3_000), (9, 5_000, 5_000)] {
            for _ in 0..100 {
                let waits = back_off(fails, &mut random).as_millis();
                assert!((least..=most).contains(&waits), "{fails}: {waits}");
            }
        }
    }

    #[test]
    fn one_address_has_ports_for_its_clients() {
        assert_eq!(source(0, PER_ADDRESS), Ipv4Addr::new(127, 0, 0, 2));
        assert_eq!(source(19_999, PER_ADDRESS), Ipv4Addr::new(127, 0, 0, 2));
        assert_eq!(source(20_000, PER_ADDRESS), Ipv4Addr::new(127, 0, 0, 3));
        assert_eq!(source(300, 1), Ipv4Addr::new(127, 0, 1, 46));
    }
}
