//! One server with its clients, and events sent to them.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::Context;
use tokio::time::{Instant, sleep};

use crate::clock;
use crate::device::Transport;
use crate::events::{Events, Form};
use crate::figures::{float, kib, ms_at, whole};
use crate::fleet::{ClientGroup, Fleet, Life, PER_ADDRESS, allow_files};
use crate::outcome::{Cost, Entry, Flood, Idle, Outcome};
use crate::process::{Cpu, Process};
use crate::producer::{Producer, Schedule};
use crate::publisher::Publisher;
use crate::rig::{Queue, Rig, SECRET};
use crate::servers::{Bounds, Kind, Mode, Server};
use crate::tally::Round;

/// How long a server is left alone before its memory is looked at.
const REST: Duration = Duration::from_secs(3);

/// How long nothing may arrive before what is missing counts as lost: longer than Belfry's first two pauses
/// before a message is tried again.
const SILENCE: Duration = Duration::from_secs(10);

/// How long a producer may take longer than it should.
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
    /// The server's CPU time before the clients came.
    before: Cpu,
}

/// How many clients there are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clients {
    pub(crate) transport: Transport,
    pub(crate) connections: u64,
    /// Clients of one user.
    pub(crate) devices: u64,
    pub(crate) life: Life,
    /// The number of the first of their users.
    pub(crate) first_user: u64,
    /// Clients that share a source address.
    pub(crate) per_address: u64,
    /// Whether Belfry keeps its bounds on them.
    pub(crate) bounds: Bounds,
    /// Whether their threads give way to all others.
    pub(crate) aside: bool,
}

impl Clients {
    /// Each is a user of its own, connects by WebSocket, and stays.
    pub(crate) fn each_alone(connections: u64) -> Self {
        Self {
            transport: Transport::WebSocket,
            connections,
            devices: 1,
            life: Life::Stay,
            first_user: 0,
            per_address: PER_ADDRESS,
            bounds: Bounds::Off,
            aside: false,
        }
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

/// What everybody has used up of the processor so far.
pub(crate) struct Clocks {
    server: Cpu,
    tool: Cpu,
    broker: u64,
    postgres: u64,
}

impl<'a> Trial<'a> {
    /// Starts the server on a queue of its own and has the clients sign in.
    pub(crate) async fn open(
        rig: &'a Rig,
        kind: Kind,
        mode: Mode<'_>,
        clients: Clients,
    ) -> anyhow::Result<Self> {
        let mut trial = Self::empty(rig, kind, mode, clients).await?;
        trial.complete().await?;
        Ok(trial)
    }

    /// The same with clients that are still on their way in.
    pub(crate) async fn empty(
        rig: &'a Rig,
        kind: Kind,
        mode: Mode<'_>,
        clients: Clients,
    ) -> anyhow::Result<Self> {
        let queue = rig.fresh_queue().await?;
        Self::on(rig, kind, mode, clients, queue).await
    }

    /// Another server of the same kind, with clients of its own. Nodes of Belfry share the queue.
    pub(crate) async fn beside(
        first: &Self,
        mode: Mode<'_>,
        clients: Clients,
    ) -> anyhow::Result<Self> {
        let queue = match first.server.kind {
            kind if kind.is_belfry() => first.queue.shared(),
            _ => first.rig.fresh_queue().await?,
        };
        let mut trial = Self::on(first.rig, first.server.kind, mode, clients, queue).await?;
        trial.complete().await?;
        Ok(trial)
    }

    async fn on(
        rig: &'a Rig,
        kind: Kind,
        mode: Mode<'_>,
        clients: Clients,
        queue: Queue,
    ) -> anyhow::Result<Self> {
        allow_files(clients.connections)?;
        let server = Server::start(kind, mode, rig, &queue, clients.bounds).await?;
        sleep(Duration::from_secs(1)).await;
        let (process, empty_rss) = (server.process(), server.process().rss());
        let before = process.cpu();
        let fleet = Fleet::gather(&client_group(rig, &server, clients))?;
        let users = clients.connections.div_ceil(clients.devices.max(1));
        let entry = Entry { empty_rss, ..Entry::default() };
        Ok(Self {
            fleet,
            server,
            queue,
            entry,
            rig,
            devices: clients.devices,
            users,
            next: 0,
            before,
        })
    }

    /// Waits for the clients, and measures what it took to let them in.
    async fn complete(&mut self) -> anyhow::Result<()> {
        if let Err(error) = self.fleet.complete().await {
            self.server.must_run()?;
            return Err(error).with_context(|| self.server.kind.to_string());
        }
        let process = self.server.process();
        let cpu = process.cpu().since(self.before);
        sleep(REST).await;
        let (empty_rss, idle_rss) = (self.entry.empty_rss, process.rss());
        let connections = float(self.fleet.connections.max(1));
        self.entry = Entry {
            empty_rss,
            idle_rss,
            kib_per_connection: kib(float(idle_rss) - float(empty_rss)) / connections,
            cpu_ms_per_connect: float(cpu) / 1e6 / connections,
        };
        Ok(())
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
        let (before, polls) = (self.clocks(), self.polls());
        clock::until(begin + clock::nanos(load.warm_up + load.time)).await;
        let (after, polls) = (self.clocks(), self.polls() - polls);
        let queued = self.queue.depth().await?;
        let sent = producer.finish(LATEST).await?;
        let expected = (sent.max(warm) - warm) * self.devices;
        self.settle(&round, expected).await;

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
            polls,
            p50_ms: ms_at(&latency, 50.0),
            p90_ms: ms_at(&latency, 90.0),
            p99_ms: ms_at(&latency, 99.0),
            p999_ms: ms_at(&latency, 99.9),
            max_ms: ms_at(&latency, 100.0),
            cost: before.until(&after, measured),
            queued,
            rss: self.server.process().rss(),
            latency: Some(latency),
        })
    }

    /// What the clients take while no events are sent.
    pub(crate) async fn idle(&self, time: Duration) -> Idle {
        let (process, polls) = (self.server.process(), self.polls());
        let (cpu, begin) = (process.cpu(), Instant::now());
        sleep(time).await;
        let (cpu, seconds) = (process.cpu().since(cpu), begin.elapsed().as_secs_f64());
        Idle {
            cpu_us_per_second: float(cpu) / 1_000.0 / seconds,
            polls_per_second: float(self.polls() - polls) / seconds,
        }
    }

    /// A round of events that something else sends; also the number of the first.
    pub(crate) fn begin(&mut self, total: u64) -> (Arc<Round>, u64) {
        let first = self.next;
        let round = Round::new(first, 0, total, u8::try_from(self.devices).unwrap_or(u8::MAX));
        self.fleet.begin(&round);
        self.next += total;
        (round, first)
    }

    /// Sends so many events as fast as the broker takes them, or at most so many ahead of what has arrived,
    /// and waits for them.
    pub(crate) async fn flood(
        &mut self,
        form: Form,
        total: u64,
        ahead: Option<u64>,
    ) -> anyhow::Result<Flood> {
        let mut publisher = self.publisher(form == Form::Store).await?;
        let (round, first) = self.begin(total);
        let mut events = Events::for_users(form, self.users);
        let lead = ahead.map(|most| Lead::new(most, self.devices, &round));
        let (before, begin) = (self.clocks(), Instant::now());
        let publishing = tokio::task::spawn_blocking(move || {
            let mut body = Vec::new();
            for sent in 0..total {
                if let Some(lead) = &lead
                    && lead.is_too_long(sent)
                {
                    publisher.flush()?;
                    lead.shorten(sent);
                }
                body.clear();
                events.write(&mut body, first + sent, clock::now());
                publisher.push(&body);
                if publisher.pending() > 1 << 16 {
                    publisher.flush()?;
                }
            }
            publisher.close()
        });
        publishing.await?.context("the broker does not take what is published")?;
        let last = self.settle(&round, total * self.devices).await;
        let seconds = (last - begin).as_secs_f64();
        let cost = self.cost_since(&before, total);
        self.server.must_run()?;
        Ok(Flood { fate: round.fate(total), seconds, cost })
    }

    /// A producer's connection to this server's queue.
    pub(crate) async fn publisher(&self, persistent: bool) -> anyhow::Result<Publisher> {
        let (url, queue) = (self.rig.amqp_url.clone(), self.queue.name.clone());
        tokio::task::spawn_blocking(move || Publisher::connect(&url, &queue, persistent)).await?
    }

    /// Waits until so many copies have arrived, or nothing more comes; says when the last one did.
    pub(crate) async fn settle(&self, round: &Arc<Round>, expected: u64) -> Instant {
        let mut arrivals = Arrivals::of(round);
        while arrivals.look() < expected && !arrivals.have_ceased() {
            sleep(Duration::from_millis(10)).await;
        }
        // The count of the last event comes after it, and a doubled one later still.
        sleep(Duration::from_millis(200)).await;
        arrivals.last.1
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

    fn polls(&self) -> u64 {
        self.fleet.counters.polls.load(Relaxed)
    }

    /// What each of so many has cost since then.
    pub(crate) fn cost_since(&self, before: &Clocks, count: u64) -> Cost {
        before.until(&self.clocks(), count)
    }

    pub(crate) fn clocks(&self) -> Clocks {
        let family = |process: Option<Process>| process.map_or(0, Process::family_cpu);
        Clocks {
            server: self.server.process().cpu(),
            tool: Process::this().cpu(),
            broker: family(self.rig.broker_process),
            postgres: family(self.rig.postgres_process),
        }
    }
}

/// How far a producer may be ahead of what arrives.
struct Lead {
    most: u64,
    devices: u64,
    round: Arc<Round>,
}

impl Lead {
    fn new(most: u64, devices: u64, round: &Arc<Round>) -> Self {
        Self { most, devices, round: Arc::clone(round) }
    }

    fn is_too_long(&self, sent: u64) -> bool {
        sent >= self.most + self.round.arrived() / self.devices
    }

    /// Waits until it is not, or nothing more arrives.
    fn shorten(&self, sent: u64) {
        let mut arrivals = Arrivals::of(&self.round);
        while self.is_too_long(sent) && !arrivals.have_ceased() {
            std::thread::sleep(Duration::from_millis(1));
            arrivals.look();
        }
    }
}

/// Watches what arrives.
struct Arrivals<'a> {
    round: &'a Round,
    /// So many had arrived when the last of them was seen.
    last: (u64, Instant),
}

impl<'a> Arrivals<'a> {
    fn of(round: &'a Round) -> Self {
        Self { round, last: (round.arrived(), Instant::now()) }
    }

    /// How many have arrived by now.
    fn look(&mut self) -> u64 {
        let arrived = self.round.arrived();
        if arrived > self.last.0 {
            self.last = (arrived, Instant::now());
        }
        arrived
    }

    /// Whether none has for so long that no more are expected.
    fn have_ceased(&self) -> bool {
        self.last.1.elapsed() >= SILENCE
    }
}

impl Clocks {
    fn until(&self, after: &Self, count: u64) -> Cost {
        let each = |nanos: u64| float(nanos) / 1_000.0 / float(count.max(1));
        Cost {
            server: each(after.server.since(self.server)),
            // Of children that have ended whole ticks are known, so these may go back a little.
            broker: each(after.broker.saturating_sub(self.broker)),
            postgres: each(after.postgres.saturating_sub(self.postgres)),
            tool: each(after.tool.since(self.tool)),
        }
    }
}

fn client_group(rig: &Rig, server: &Server, clients: Clients) -> ClientGroup {
    ClientGroup {
        server: server.address,
        secret: SECRET.to_owned(),
        transport: clients.transport,
        connections: clients.connections,
        devices: clients.devices,
        first_user: clients.first_user,
        rate: rig.options.connect_rate,
        threads: rig.options.client_threads,
        life: clients.life,
        per_address: clients.per_address,
        aside: clients.aside,
    }
}
