//! One server with its clients, and events sent to them.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::clock;
use crate::events::{Events, Form};
use crate::figures::{float, kib, ms_at, whole};
use crate::fleet::{Crowd, Fleet, Life, allow_files};
use crate::process::Process;
use crate::producer::{Producer, Schedule};
use crate::publisher::Publisher;
use crate::rig::{Queue, Rig, SECRET};
use crate::servers::{Kind, Mode, Server};
use crate::tally::{Latency, Round};

/// How long a server is left alone before its memory is looked at.
const REST: Duration = Duration::from_secs(3);

/// How long nothing may arrive before what is missing counts as lost.
const SILENCE: Duration = Duration::from_secs(2);

/// How long is waited at most for what is late.
const LATEST: Duration = Duration::from_secs(30);

/// A server and signed-in clients.
#[derive(Debug)]
pub(crate) struct Trial<'a> {
    // The clients first: they are cut off before their server ends.
    pub(crate) fleet: Fleet,
    pub(crate) server: Server,
    pub(crate) queue: Queue,
    pub(crate) entry: Entry,
    rig: &'a Rig,
    devices: u64,
    users: u64,
    next: u64,
}

/// What it took to let the clients in.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Entry {
    /// Resident memory of the server without clients.
    pub(crate) empty_rss: u64,
    /// And with all of them idle.
    pub(crate) idle_rss: u64,
    pub(crate) kib_per_connection: f64,
    pub(crate) cpu_ms_per_connect: f64,
}

/// How many clients there are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guests {
    pub(crate) connections: u64,
    /// Clients of one user.
    pub(crate) devices: u64,
    pub(crate) life: Life,
}

impl Guests {
    /// Each is a user of its own, and stays.
    pub(crate) fn each_alone(connections: u64) -> Self {
        Self { connections, devices: 1, life: Life::Stay }
    }
}

/// Events to send, at a steady rate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) form: Form,
    pub(crate) rate: f64,
    /// Not measured.
    pub(crate) warm_up: Duration,
    pub(crate) time: Duration,
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Outcome {
    pub(crate) rate: f64,
    pub(crate) delivered: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    /// Frames with a count that never came, in forward mode.
    pub(crate) counts_missing: i64,
    pub(crate) cut_off: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p90_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    pub(crate) max_ms: f64,
    /// CPU time per event: of the server, of the broker, and of this tool.
    pub(crate) cpu_us: f64,
    pub(crate) broker_cpu_us: f64,
    pub(crate) postgres_cpu_us: f64,
    pub(crate) tool_cpu_us: f64,
    /// Messages that waited in the queue when the last one was sent.
    pub(crate) queued: u64,
    pub(crate) rss: u64,
    #[serde(skip)]
    pub(crate) latency: Option<Latency>,
}

struct Clocks {
    server: crate::process::Cpu,
    tool: crate::process::Cpu,
    broker: u64,
    postgres: u64,
}

impl<'a> Trial<'a> {
    /// Starts the server on a queue of its own and has the clients sign in.
    pub(crate) async fn open(
        rig: &'a Rig,
        kind: Kind,
        mode: Mode<'_>,
        guests: Guests,
    ) -> anyhow::Result<Self> {
        allow_files(guests.connections)?;
        let queue = rig.fresh_queue().await?;
        let mut server = Server::start(kind, mode, rig, &queue).await?;
        sleep(Duration::from_secs(1)).await;
        let (process, empty_rss) = (server.process(), server.process().rss());
        let before = process.cpu();
        let fleet = Fleet::gather(&crowd(rig, &server, guests))?;
        if let Err(error) = fleet.complete().await {
            server.must_run()?;
            return Err(error).with_context(|| format!("{kind}"));
        }
        let cpu = process.cpu().since(before);
        sleep(REST).await;
        let idle_rss = process.rss();
        let connections = float(guests.connections.max(1));
        let entry = Entry {
            empty_rss,
            idle_rss,
            kib_per_connection: kib(float(idle_rss) - float(empty_rss)) / connections,
            cpu_ms_per_connect: float(cpu) / 1e6 / connections,
        };
        let users = guests.connections.div_ceil(guests.devices.max(1));
        Ok(Self { fleet, server, queue, entry, rig, devices: guests.devices, users, next: 0 })
    }

    /// Sends events and waits for them.
    pub(crate) async fn send(&mut self, load: Load) -> anyhow::Result<Outcome> {
        let [warm, measured] =
            [load.warm_up, load.time].map(|it| whole(it.as_secs_f64() * load.rate));
        let total = warm + measured;
        let publisher = self.publisher(load.form == Form::Store).await?;
        let round = Round::new(self.next, warm, total, u8::try_from(self.devices)?);
        self.fleet.begin(&round);
        let (counts, cut) = (self.counts(), self.fleet.counters.cut.load(Relaxed));
        let begin = clock::now() + clock::nanos(Duration::from_millis(50));
        let schedule = Schedule { begin, rate: load.rate, first: self.next, total };
        self.next += total;
        let events = Events::for_users(load.form, self.users);
        let producer = Producer::start(publisher, events, schedule);

        clock::until(begin + clock::nanos(load.warm_up)).await;
        let before = self.clocks();
        clock::until(begin + clock::nanos(load.warm_up + load.time)).await;
        let after = self.clocks();
        let queued = self.queue.depth().await?;
        let sent = producer.finish(LATEST).await?;
        let expected = (sent.max(warm) - warm) * self.devices;
        self.settle(&round, expected).await;

        let per_event = |nanos: u64| float(nanos) / 1_000.0 / float(measured.max(1));
        let fate = round.fate(total);
        let latency = self.fleet.take_latency();
        let (new, unread) = self.counts();
        let heard = i64::try_from(new - counts.0)? - i64::try_from(unread - counts.1)?;
        self.server.must_run()?;
        Ok(Outcome {
            rate: load.rate,
            delivered: fate.delivered,
            lost: fate.lost,
            doubled: fate.doubled,
            counts_missing: heard,
            cut_off: self.fleet.counters.cut.load(Relaxed) - cut,
            p50_ms: ms_at(&latency, 50.0),
            p90_ms: ms_at(&latency, 90.0),
            p99_ms: ms_at(&latency, 99.0),
            p999_ms: ms_at(&latency, 99.9),
            max_ms: ms_at(&latency, 100.0),
            cpu_us: per_event(after.server.since(before.server)),
            broker_cpu_us: per_event(after.broker - before.broker),
            postgres_cpu_us: per_event(after.postgres - before.postgres),
            tool_cpu_us: per_event(after.tool.since(before.tool)),
            queued,
            rss: self.server.process().rss(),
            latency: Some(latency),
        })
    }

    /// A producer's connection to this server's queue.
    pub(crate) async fn publisher(&self, persistent: bool) -> anyhow::Result<Publisher> {
        let (url, queue) = (self.rig.amqp_url.clone(), self.queue.name.clone());
        tokio::task::spawn_blocking(move || Publisher::connect(&url, &queue, persistent)).await?
    }

    /// Waits until so many copies have arrived, or nothing more comes.
    pub(crate) async fn settle(&self, round: &Arc<Round>, expected: u64) {
        let deadline = Instant::now() + LATEST;
        let mut last = (round.arrived(), Instant::now());
        while round.arrived() < expected && Instant::now() < deadline {
            if round.arrived() > last.0 {
                last = (round.arrived(), Instant::now());
            }
            if last.1.elapsed() > SILENCE {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        // The count of the last event comes after it, and a doubled one later still.
        sleep(Duration::from_millis(200)).await;
    }

    /// Ends it, with its queue.
    pub(crate) async fn close(self) {
        drop((self.fleet, self.server));
        self.queue.delete().await;
    }

    fn counts(&self) -> (u64, u64) {
        let counters = &self.fleet.counters;
        (counters.new.load(Relaxed), counters.unread.load(Relaxed))
    }

    fn clocks(&self) -> Clocks {
        let family = |process: Option<Process>| process.map_or(0, Process::family_cpu);
        Clocks {
            server: self.server.process().cpu(),
            tool: Process::this().cpu(),
            broker: family(self.rig.broker_process),
            postgres: family(self.rig.postgres_process),
        }
    }
}

fn crowd(rig: &Rig, server: &Server, guests: Guests) -> Crowd {
    Crowd {
        server: server.address,
        secret: SECRET.to_owned(),
        connections: guests.connections,
        devices: guests.devices,
        first_user: 0,
        rate: rig.options.connect_rate,
        threads: rig.options.client_threads,
        life: guests.life,
        seen: String::new(),
    }
}
