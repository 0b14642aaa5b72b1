//! The servers under test: Belfry and its peers.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use belfry_tests::child::{ChildProcess, Stream};
use belfry_tests::process::{Belfry, Builder};
use belfry_tests::servers::free_port;
use clap::ValueEnum;

use crate::process::Process;
use crate::rig::{Queue, Rig, SECRET};

/// Timeout for starting a server.
const START_TIMEOUT: Duration = Duration::from_mins(1);

/// A kind of server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum ServerKind {
    /// Belfry as the only node (`amqp.ingest.only_node`)
    Belfry,
    /// Belfry as one node of several: events pass through the node queue
    BelfryNodes,
    /// Another build of Belfry, as the only node (`--baseline`)
    Baseline,
    /// A NestJS gateway
    Nest,
    /// Plain Node: socket.io and amqplib
    Node,
    /// The minimal program: a consumer, a map of users to sockets, hand-written frames
    BareBridge,
}

impl fmt::Display for ServerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Belfry => "belfry",
            Self::BelfryNodes => "belfry-nodes",
            Self::Baseline => "baseline",
            Self::Nest => "nest",
            Self::Node => "node",
            Self::BareBridge => "bare-bridge",
        })
    }
}

/// Belfry's mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode<'a> {
    /// Forwards events without storing them.
    Forward,
    /// Stores notifications in the database with this URL.
    Store(&'a str),
}

/// Belfry's limits per address, user and device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limits {
    /// Off: all clients share few addresses, and one user sends all requests of the service, so limits would apply.
    Off,
    /// The defaults.
    Default,
}

/// A running server. Dropping this stops it.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) kind: ServerKind,
    pub(crate) address: SocketAddr,
    running: Running,
}

#[derive(Debug)]
enum Running {
    Belfry(Box<Belfry>),
    Peer { child: ChildProcess, command: Box<Command> },
}

/// The folder `tests` of this checkout.
pub(crate) fn tests() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn peers() -> PathBuf {
    tests().join("load/peers")
}

impl ServerKind {
    /// Builds the server, or installs its dependencies.
    pub(crate) fn prepare(self) -> anyhow::Result<()> {
        match self {
            Self::Belfry | Self::BelfryNodes | Self::Baseline => Ok(()),
            Self::BareBridge => build("belfry-tests", "belfry-load-bare-bridge").map(drop),
            Self::Node => npm(&peers().join("node"), &[]),
            Self::Nest => npm(&peers().join("nest"), &["dist/main.js"]),
        }
    }

    pub(crate) fn is_belfry(self) -> bool {
        matches!(self, Self::Belfry | Self::BelfryNodes | Self::Baseline)
    }
}

/// Installs a package's dependencies, and builds the package if one of the `built` files is missing.
fn npm(folder: &Path, built: &[&str]) -> anyhow::Result<()> {
    ensure!(folder.join("package.json").exists(), "{} has no package.json", folder.display());
    if !folder.join("node_modules").exists() {
        run(Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(folder))?;
    }
    if built.iter().any(|file| !folder.join(file).exists()) {
        run(Command::new("npm").args(["run", "build"]).current_dir(folder))?;
    }
    Ok(())
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    eprintln!("{command:?}");
    // Captures the output, because standard output is for the report.
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}\n{errors}", output.status);
    Ok(())
}

/// Builds an executable of this checkout in release mode.
pub(crate) fn build(package: &str, name: &str) -> anyhow::Result<PathBuf> {
    let target = target()?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "-p", package, "--bin", name]);
    run(command.arg("--target-dir").arg(&target).current_dir(tests()))?;
    Ok(target.join("release").join(name))
}

/// Cargo's target folder, which contains this executable.
fn target() -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe()?;
    let profile = this.ancestors().skip(1).find(|folder| !folder.ends_with("deps"));
    let target = profile.and_then(Path::parent).context("cannot find the target folder")?;
    Ok(target.to_owned())
}

impl Server {
    /// Starts a server and waits until it consumes the queue.
    pub(crate) async fn start(
        kind: ServerKind,
        mode: Mode<'_>,
        rig: &Rig,
        queue: &Queue,
        limits: Limits,
    ) -> anyhow::Result<Self> {
        if kind.is_belfry() {
            let builder = belfry(kind, mode, rig, queue, limits)?;
            let belfry =
                builder.try_start().await.map_err(|failure| anyhow!("belfry: {failure}"))?;
            let address = belfry.url().trim_start_matches("http://").parse()?;
            return Ok(Self { kind, address, running: Running::Belfry(Box::new(belfry)) });
        }
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut command = program(kind)?;
        command
            .env("PEER_LISTEN", address.to_string())
            .env("PEER_AMQP_URL", &rig.amqp_url)
            .env("PEER_QUEUE", &queue.name)
            .env("PEER_SECRET", SECRET)
            .env("PEER_ACK", &rig.options.peer_ack)
            .env("NODE_ENV", "production");
        if let Mode::Store(database) = mode {
            command.env("PEER_DATABASE_URL", database);
        }
        let child = launch(kind, &mut command, address).await?;
        Ok(Self { kind, address, running: Running::Peer { child, command: Box::new(command) } })
    }

    /// Kills the server (SIGKILL) and waits for its end.
    pub(crate) fn kill(&mut self) {
        match &mut self.running {
            Running::Belfry(belfry) => belfry.kill(),
            Running::Peer { child, .. } => child.kill(),
        }
    }

    /// Restarts the server with the same address and queue.
    pub(crate) async fn restart(&mut self) -> anyhow::Result<()> {
        match &mut self.running {
            Running::Belfry(belfry) => belfry.restart().await,
            Running::Peer { child, command } => {
                child.kill();
                *child = launch(self.kind, command, self.address).await?;
            }
        }
        Ok(())
    }

    /// Belfry; `None` if the server is a peer.
    pub(crate) fn belfry(&self) -> Option<&Belfry> {
        match &self.running {
            Running::Belfry(belfry) => Some(belfry),
            Running::Peer { .. } => None,
        }
    }

    pub(crate) fn process(&self) -> Process {
        Process(match &self.running {
            Running::Belfry(belfry) => belfry.pid(),
            Running::Peer { child, .. } => child.pid(),
        })
    }

    /// Fails with the server's log if it has ended.
    pub(crate) fn must_run(&mut self) -> anyhow::Result<()> {
        let (runs, log) = match &mut self.running {
            Running::Belfry(belfry) => (belfry.is_running(), belfry.log()),
            Running::Peer { child, .. } => (child.is_running(), last_lines(child)),
        };
        ensure!(runs, "{} has ended unexpectedly:\n{log}", self.kind);
        Ok(())
    }
}

/// Starts a peer and waits until it consumes.
async fn launch(
    kind: ServerKind,
    command: &mut Command,
    address: SocketAddr,
) -> anyhow::Result<ChildProcess> {
    let child = ChildProcess::new(command, None).with_context(|| format!("cannot run {kind}"))?;
    let ready_line = format!("listening on {address}");
    let ready = child.wait_for(START_TIMEOUT, |lines| {
        let mut out = lines.iter().filter(|line| line.stream == Stream::Out);
        out.any(|line| line.text.contains(&ready_line)).then_some(())
    });
    ready.await.map_err(|why| anyhow!("{kind} did not start: {why}\n{}", last_lines(&child)))?;
    Ok(child)
}

/// The command that starts a peer.
fn program(kind: ServerKind) -> anyhow::Result<Command> {
    Ok(match kind {
        ServerKind::BareBridge => Command::new(target()?.join("release/belfry-load-bare-bridge")),
        ServerKind::Nest => script("nest/dist/main.js"),
        _ => script("node/server.js"),
    })
}

fn script(path: &str) -> Command {
    let mut command = Command::new("node");
    command.arg(peers().join(path));
    command
}

/// The last 30 lines of a peer's output.
fn last_lines(child: &ChildProcess) -> String {
    let lines = child.lines();
    let last: Vec<_> = lines.iter().rev().take(30).map(|line| line.text.as_str()).collect();
    last.into_iter().rev().collect::<Vec<_>>().join("\n")
}

fn belfry(
    kind: ServerKind,
    mode: Mode<'_>,
    rig: &Rig,
    queue: &Queue,
    limits: Limits,
) -> anyhow::Result<Builder> {
    // A unique name for the node, because several may share the ingest queue.
    let port = free_port();
    let node = format!("load-{port}");
    queue.names.will_delete_queue(queue.names.node_queue(&node));
    let mut builder = Belfry::builder()
        .program(rig.program(kind)?)
        .broker(&queue.names)
        .setting("node.name", node)
        .setting("auth.hs256_secret", SECRET)
        .setting("log.level", "warn")
        // The `attack` command parses the log.
        .setting("log.format", "json");
    if limits == Limits::Off {
        let missing = match kind {
            ServerKind::Baseline => rig.options.baseline_without.as_slice(),
            _ => &[],
        };
        builder = without_limits(builder, missing);
    }
    builder = builder.setting("amqp.ingest.only_node", kind != ServerKind::BelfryNodes);
    builder = match mode {
        Mode::Forward => builder.setting("amqp.ingest.mode", "forward"),
        Mode::Store(database) => builder.database(database),
    };
    for (path, value) in &rig.options.settings {
        builder = builder.setting(path, value);
    }
    Ok(builder)
}

/// Turns off every limit, except the `missing` ones: this build does not know their settings.
fn without_limits(mut builder: Builder, missing: &[String]) -> Builder {
    for limit in [
        "connections",
        "connections_per_address",
        "sessions_per_user",
        "handshakes_per_second",
        "handshakes_per_address",
        "messages_per_second",
        "requests_per_second",
        "writes_per_second",
        "work_per_user",
    ] {
        let setting = format!("limits.{limit}");
        if !missing.contains(&setting) {
            builder = builder.setting(&setting, 0);
        }
    }
    builder
}
