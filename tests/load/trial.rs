//! One server with its clients, and events sent to them.

mod cpu;
mod flood;
mod progress;
mod steady;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::time::{Instant, sleep};

use crate::client::ClientBehaviour;
use crate::device::Transport;
use crate::figures::{float, kib};
use crate::fleet::{ClientGroup, ConnectPace, Fleet, PER_ADDRESS, allow_files};
use crate::outcome::ConnectCost;
use crate::process::Cpu;
use crate::publisher::Publisher;
use crate::rig::{Queue, Rig, SECRET};
use crate::servers::{Limits, Mode, Server, ServerKind};
use crate::tally::Round;

pub(crate) use steady::Load;

/// Pause before the memory of idle clients is measured.
pub(crate) const MEMORY_PAUSE: Duration = Duration::from_secs(3);

/// A server and signed-in clients.
#[derive(Debug)]
pub(crate) struct Trial<'a> {
    // Declared first, so that the clients are dropped before the server.
    pub(crate) fleet: Fleet,
    pub(crate) server: Server,
    pub(crate) queue: Queue,
    pub(crate) connect_cost: ConnectCost,
    rig: &'a Rig,
    clients: Clients,
    /// Clients per user.
    devices: u64,
    users: u64,
    /// The number of the next event.
    next: u64,
    /// The server's CPU time before the clients connected, and the time then.
    before: (Cpu, Instant),
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
    /// How fast they connect. `None` is the rate of `--connect-rate`.
    pub(crate) pace: Option<ConnectPace>,
    /// Belfry's limits.
    pub(crate) limits: Limits,
    /// If true, the client threads yield to all others.
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
            pace: None,
            limits: Limits::Off,
            yielding: false,
        }
    }
}

impl<'a> Trial<'a> {
    /// Starts a server on a new queue, and waits until the clients are signed in.
    pub(crate) async fn open(
        rig: &'a Rig,
        kind: ServerKind,
        mode: Mode<'_>,
        clients: Clients,
    ) -> anyhow::Result<Self> {
        let mut trial = Self::start(rig, kind, mode, clients).await?;
        trial.connect().await?;
        Ok(trial)
    }

    /// Like [`open`](Self::open), without waiting for the clients.
    pub(crate) async fn start_connecting(
        rig: &'a Rig,
        kind: ServerKind,
        mode: Mode<'_>,
        clients: Clients,
    ) -> anyhow::Result<Self> {
        let mut trial = Self::start(rig, kind, mode, clients).await?;
        trial.begin_connecting()?;
        Ok(trial)
    }

    /// Starts a server on a new queue, without its clients.
    pub(crate) async fn start(
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
        trial.connect().await?;
        Ok(trial)
    }

    /// Starts a server on this queue, without its clients.
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
        let process = server.process();
        let connect_cost = ConnectCost { empty_rss: process.rss(), ..ConnectCost::default() };
        Ok(Self {
            fleet: Fleet::none(),
            before: (process.cpu(), Instant::now()),
            server,
            queue,
            connect_cost,
            rig,
            devices: clients.devices,
            users: clients.connections.div_ceil(clients.devices.max(1)),
            clients,
            next: 0,
        })
    }

    /// Connects the clients, waits for them, and measures the cost.
    pub(crate) async fn connect(&mut self) -> anyhow::Result<()> {
        self.begin_connecting()?;
        self.finish_connecting().await
    }

    fn begin_connecting(&mut self) -> anyhow::Result<()> {
        self.before = (self.server.process().cpu(), Instant::now());
        self.fleet = Fleet::start(&client_group(self.rig, &self.server, self.clients))?;
        Ok(())
    }

    async fn finish_connecting(&mut self) -> anyhow::Result<()> {
        if let Err(error) = self.fleet.wait_until_connected().await {
            self.server.must_run()?;
            return Err(error).with_context(|| self.server.kind.to_string());
        }
        let (cpu, begin) = self.before;
        let connect_seconds = begin.elapsed().as_secs_f64();
        let process = self.server.process();
        let cpu = process.cpu().since(cpu);
        let at_once_kib_per_connection = self.kib_per_connection();
        sleep(MEMORY_PAUSE).await;
        self.connect_cost = ConnectCost {
            empty_rss: self.connect_cost.empty_rss,
            idle_rss: process.rss(),
            at_once_kib_per_connection,
            kib_per_connection: self.kib_per_connection(),
            cpu_ms_per_connect: float(cpu) / 1e6 / float(self.fleet.connections.max(1)),
            connect_seconds,
        };
        Ok(())
    }

    /// Closes the connections of all clients.
    pub(crate) fn disconnect(&mut self) {
        self.fleet = Fleet::none();
    }

    /// The growth of the server's resident memory since it had no clients, in KiB per connection.
    pub(crate) fn kib_per_connection(&self) -> f64 {
        let grown = float(self.server.process().rss()) - float(self.connect_cost.empty_rss);
        kib(grown) / float(self.clients.connections.max(1))
    }

    /// Begins a round of events that the caller sends. Also returns the number of the first event.
    pub(crate) fn begin(&mut self, total: u64) -> (Arc<Round>, u64) {
        let first = self.next;
        let round = Round::new(first, 0, total, u8::try_from(self.devices).unwrap_or(u8::MAX));
        self.fleet.begin(&round);
        self.next += total;
        (round, first)
    }

    /// A producer's connection to this server's queue.
    pub(crate) async fn publisher(&self, persistent: bool) -> anyhow::Result<Publisher> {
        let (url, queue) = (self.rig.amqp_url.clone(), self.queue.name.clone());
        tokio::task::spawn_blocking(move || Publisher::connect(&url, &queue, persistent)).await?
    }

    /// Stops clients and server, and deletes the queue.
    pub(crate) async fn close(self) {
        drop((self.fleet, self.server));
        self.queue.delete().await;
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
        pace: clients.pace.unwrap_or(ConnectPace::PerSecond(rig.options.connect_rate)),
        threads: rig.options.client_threads,
        behaviour: clients.behaviour,
        per_address: clients.per_address,
        yielding: clients.yielding,
    }
}
