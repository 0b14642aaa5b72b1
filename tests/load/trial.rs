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
use crate::fleet::{ClientBehaviour, ClientGroup, Fleet, PER_ADDRESS, allow_files};
use crate::outcome::{ConnectCost, Cost, Flood, Idle, Outcome};
use crate::process::{Cpu, Process};
use crate::producer::{Producer, Schedule};
use crate::publisher::Publisher;
use crate::rig::{Queue, Rig, SECRET};
use crate::servers::{Limits, Mode, Server, ServerKind};
use crate::tally::Round;

/// Pause before a server's memory is measured.
const MEMORY_PAUSE: Duration = Duration::from_secs(3);

/// Time without deliveries after which missing events count as lost: longer than Belfry's first two retry delays.
const LOSS_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximal delay of a producer.
const PRODUCER_TIMEOUT: Duration = Duration::from_secs(30);

/// A server and signed-in clients.
#[derive(Debug)]
pub(crate) struct Trial<'a> {
    // Declared first, so that the clients are dropped before the server.
    pub(crate) fleet: Fleet,
    pub(crate) server: Server,
    pub(crate) queue: Queue,
    pub(crate) connect_cost: ConnectCost,
    rig: &'a Rig,
    devices: u64,
    users: u64,
    next: u64,
    /// The server's CPU time before the clients connected.
    before: Cpu,
}

/// The clients of a trial.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clients {
    pub(crate) transport: Transport,
    pub(crate) connections: u64,
    /// Clients per user.
    pub(crate) devices: u64,
    pub(crate) behaviour: ClientBehaviour,
    /// The number of the first user.
    pub(crate) first_user: u64,
    /// Clients per source address.
    pub(crate) per_address: u64,
    /// Belfry's limits.
    pub(crate) limits: Limits,
    /// Whether the client threads yield to all others.
    pub(crate) yielding: bool,
}

impl Clients {
    /// Clients of different users that connect by WebSocket and stay.
    pub(crate) fn each_alone(connections: u64) -> Self {
        Self {
            transport: Transport::WebSocket,
            connections,
            devices: 1,
            behaviour: ClientBehaviour::Stay,
            first_user: 0,
            per_address: PER_ADDRESS,
            limits: Limits::Off,
            yielding: false,
        }
    }
}

/// Events to publish at a steady rate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) form: Form,
    pub(crate) rate: f64,
    /// Time before the measurement.
    pub(crate) warm_up: Duration,
    pub(crate) time: Duration,
}

/// CPU time of all processes so far.
pub(crate) struct CpuSnapshot {
    server: Cpu,
    tool: Cpu,
    broker: u64,
    postgres: u64,
}

impl<'a> Trial<'a> {
    /// Starts a server on a new queue, and waits until the clients are signed in.
    pub(crate) async fn open(
        rig: &'a Rig,
        kind: ServerKind,
        mode: Mode<'_>,
        clients: Clients,
    ) -> anyhow::Result<Self> {
        let mut trial = Self::start_connecting(rig, kind, mode, clients).await?;
        trial.finish_connecting().await?;
        Ok(trial)
    }

    /// Like [`open`](Self::open), without waiting for the clients.
    pub(crate) async fn start_connecting(
        rig: &'a Rig,
        kind: ServerKind,
        mode: Mode<'_>,
        clients: Clients,
    ) -> anyhow::Result<Self> {
        let queue = rig.fresh_queue().await?;
        Self::on(rig, kind, mode, clients, queue).await
    }

    /// Opens another server of the same kind, with its own clients. Nodes of Belfry share the queue.
    pub(crate) async fn open_another(
        first: &Self,
        mode: Mode<'_>,
        clients: Clients,
    ) -> anyhow::Result<Self> {
        let queue = match first.server.kind {
            kind if kind.is_belfry() => first.queue.shared(),
            _ => first.rig.fresh_queue().await?,
        };
        let mut trial = Self::on(first.rig, first.server.kind, mode, clients, queue).await?;
        trial.finish_connecting().await?;
        Ok(trial)
    }

    async fn on(
        rig: &'a Rig,
        kind: ServerKind,
        mode: Mode<'_>,
        clients: Clients,
        queue: Queue,
    ) -> anyhow::Result<Self> {
        allow_files(clients.connections)?;
        let server = Server::start(kind, mode, rig, &queue, clients.limits).await?;
        sleep(Duration::from_secs(1)).await;
        let (process, empty_rss) = (server.process(), server.process().rss());
        let before = process.cpu();
        let fleet = Fleet::start(&client_group(rig, &server, clients))?;
        let users = clients.connections.div_ceil(clients.devices.max(1));
        let connect_cost = ConnectCost { empty_rss, ..ConnectCost::default() };
        Ok(Self {
            fleet,
            server,
            queue,
            connect_cost,
            rig,
            devices: clients.devices,
            users,
            next: 0,
            before,
        })
    }

    /// Waits for the clients, and measures the cost of connecting them.
    async fn finish_connecting(&mut self) -> anyhow::Result<()> {
        if let Err(error) = self.fleet.wait_until_connected().await {
            self.server.must_run()?;
            return Err(error).with_context(|| self.server.kind.to_string());
        }
        let process = self.server.process();
        let cpu = process.cpu().since(self.before);
        sleep(MEMORY_PAUSE).await;
        let (empty_rss, idle_rss) = (self.connect_cost.empty_rss, process.rss());
        let connections = float(self.fleet.connections.max(1));
        self.connect_cost = ConnectCost {
            empty_rss,
            idle_rss,
            kib_per_connection: kib(float(idle_rss) - float(empty_rss)) / connections,
            cpu_ms_per_connect: float(cpu) / 1e6 / connections,
        };
        Ok(())
    }

    /// Publishes events and waits for their delivery.
    pub(crate) async fn send(&mut self, load: Load) -> anyhow::Result<Outcome> {
        let [warm, measured] =
            [load.warm_up, load.time].map(|it| whole(it.as_secs_f64() * load.rate));
        let total = warm + measured;
        let publisher = self.publisher(load.form == Form::Store).await?;
        let round = Round::new(self.next, warm, total, u8::try_from(self.devices)?);
        self.fleet.begin(&round);
        let (counts, cut) = (self.counts(), self.fleet.counters.cut_off.load(Relaxed));
        let begin = clock::now() + clock::nanos(Duration::from_millis(50));
        let schedule = Schedule { begin, rate: load.rate, first: self.next, total };
        self.next += total;
        let events = Events::for_users(load.form, self.users);
        let producer = Producer::start(publisher, events, schedule);

        clock::until(begin + clock::nanos(load.warm_up)).await;
        let (before, polls) = (self.cpu_snapshot(), self.polls());
        clock::until(begin + clock::nanos(load.warm_up + load.time)).await;
        let (after, polls) = (self.cpu_snapshot(), self.polls() - polls);
        let queued = self.queue.depth().await?;
        let sent = producer.finish(PRODUCER_TIMEOUT).await?;
        let expected = (sent.max(warm) - warm) * self.devices;
        self.wait_for_events(&round, expected).await;

        let delivery = round.delivery_counts(total);
        let latency = self.fleet.take_latency();
        let (new, unread) = self.counts();
        let counts_missing = i64::try_from(new - counts.0)? - i64::try_from(unread - counts.1)?;
        self.server.must_run()?;
        Ok(Outcome {
            rate: load.rate,
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
        let (process, polls) = (self.server.process(), self.polls());
        let (cpu, begin) = (process.cpu(), Instant::now());
        sleep(time).await;
        let (cpu, seconds) = (process.cpu().since(cpu), begin.elapsed().as_secs_f64());
        Idle {
            cpu_us_per_second: float(cpu) / 1_000.0 / seconds,
            polls_per_second: float(self.polls() - polls) / seconds,
        }
    }

    /// Begins a round of events that the caller sends. Also returns the number of the first event.
    pub(crate) fn begin(&mut self, total: u64) -> (Arc<Round>, u64) {
        let first = self.next;
        let round = Round::new(first, 0, total, u8::try_from(self.devices).unwrap_or(u8::MAX));
        self.fleet.begin(&round);
        self.next += total;
        (round, first)
    }

    /// Publishes `total` events as fast as the broker accepts them, with at most `ahead` of them not yet delivered, and
    /// waits for their delivery.
    pub(crate) async fn flood(
        &mut self,
        form: Form,
        total: u64,
        ahead: Option<u64>,
    ) -> anyhow::Result<Flood> {
        let mut publisher = self.publisher(form == Form::Store).await?;
        let (round, first) = self.begin(total);
        let mut events = Events::for_users(form, self.users);
        let window = ahead.map(|ahead| PublishWindow::new(ahead, self.devices, &round));
        let (before, begin) = (self.cpu_snapshot(), Instant::now());
        let publishing = tokio::task::spawn_blocking(move || {
            let mut body = Vec::new();
            for sent in 0..total {
                if let Some(window) = &window
                    && window.is_full(sent)
                {
                    publisher.flush()?;
                    window.wait_for_room(sent);
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
        publishing.await?.context("publishing failed")?;
        let last = self.wait_for_events(&round, total * self.devices).await;
        let seconds = (last - begin).as_secs_f64();
        let cost = self.cost_since(&before, total);
        self.server.must_run()?;
        Ok(Flood { delivery: round.delivery_counts(total), seconds, cost })
    }

    /// A producer's connection to this server's queue.
    pub(crate) async fn publisher(&self, persistent: bool) -> anyhow::Result<Publisher> {
        let (url, queue) = (self.rig.amqp_url.clone(), self.queue.name.clone());
        tokio::task::spawn_blocking(move || Publisher::connect(&url, &queue, persistent)).await?
    }

    /// Waits until `expected` copies have arrived, or no more arrive. Returns the time of the last one.
    pub(crate) async fn wait_for_events(&self, round: &Arc<Round>, expected: u64) -> Instant {
        let mut arrivals = Arrivals::of(round);
        while arrivals.update() < expected && !arrivals.have_stopped() {
            sleep(Duration::from_millis(10)).await;
        }
        // The unread count follows the last event, and a duplicate may follow even later.
        sleep(Duration::from_millis(200)).await;
        arrivals.last.1
    }

    /// Stops clients and server, and deletes the queue.
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

    /// The cost per event since `before`.
    pub(crate) fn cost_since(&self, before: &CpuSnapshot, count: u64) -> Cost {
        before.cost_until(&self.cpu_snapshot(), count)
    }

    pub(crate) fn cpu_snapshot(&self) -> CpuSnapshot {
        let family = |process: Option<Process>| process.map_or(0, Process::family_cpu);
        CpuSnapshot {
            server: self.server.process().cpu(),
            tool: Process::this().cpu(),
            broker: family(self.rig.broker_process),
            postgres: family(self.rig.postgres_process),
        }
    }
}

/// Limits how many events a producer publishes ahead of their delivery.
struct PublishWindow {
    max_ahead: u64,
    devices: u64,
    round: Arc<Round>,
}

impl PublishWindow {
    fn new(max_ahead: u64, devices: u64, round: &Arc<Round>) -> Self {
        Self { max_ahead, devices, round: Arc::clone(round) }
    }

    fn is_full(&self, sent: u64) -> bool {
        sent >= self.max_ahead + self.round.arrived() / self.devices
    }

    /// Waits until the window has room, or no more events arrive.
    fn wait_for_room(&self, sent: u64) {
        let mut arrivals = Arrivals::of(&self.round);
        while self.is_full(sent) && !arrivals.have_stopped() {
            std::thread::sleep(Duration::from_millis(1));
            arrivals.update();
        }
    }
}

/// Tracks the arrival of events.
struct Arrivals<'a> {
    round: &'a Round,
    /// The number of received copies, and the time of its last increase.
    last: (u64, Instant),
}

impl<'a> Arrivals<'a> {
    fn of(round: &'a Round) -> Self {
        Self { round, last: (round.arrived(), Instant::now()) }
    }

    /// The current number of received copies.
    fn update(&mut self) -> u64 {
        let arrived = self.round.arrived();
        if arrived > self.last.0 {
            self.last = (arrived, Instant::now());
        }
        arrived
    }

    /// Whether no event has arrived for [`LOSS_TIMEOUT`].
    fn have_stopped(&self) -> bool {
        self.last.1.elapsed() >= LOSS_TIMEOUT
    }
}

impl CpuSnapshot {
    fn cost_until(&self, after: &Self, count: u64) -> Cost {
        let each = |nanos: u64| float(nanos) / 1_000.0 / float(count.max(1));
        Cost {
            server: each(after.server.since(self.server)),
            // Ended children are counted in whole ticks, so these values may decrease slightly.
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
        behaviour: clients.behaviour,
        per_address: clients.per_address,
        yielding: clients.yielding,
    }
}
