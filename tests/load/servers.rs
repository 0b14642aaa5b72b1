//! The servers that are measured: Belfry, and peers that do the same.

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

/// How long one may take to start.
const PATIENCE: Duration = Duration::from_mins(1);

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Kind {
    /// Belfry as the only node (`amqp.ingest.only_node`)
    Belfry,
    /// Belfry as one node of several: events take another way through the broker
    BelfryNodes,
    /// Another build of Belfry, as the only node (`--baseline`)
    Baseline,
    /// A NestJS gateway
    Nest,
    /// Plain Node: socket.io and amqplib
    Node,
    /// The least that can do it: a consumer, a map of users to sockets, frames by hand
    Floor,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Belfry => "belfry",
            Self::BelfryNodes => "belfry-nodes",
            Self::Baseline => "baseline",
            Self::Nest => "nest",
            Self::Node => "node",
            Self::Floor => "floor",
        })
    }
}

/// What Belfry does with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode<'a> {
    /// Passes it on.
    Forward,
    /// Stores it in that database of PostgreSQL.
    Store(&'a str),
}

/// Whether Belfry bounds what one address, user or device may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bounds {
    /// Off: the tool's clients are one address, and its service is one user.
    Off,
    /// As they are by default.
    Default,
}

/// A running server. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) kind: Kind,
    pub(crate) address: SocketAddr,
    running: Running,
}

#[derive(Debug)]
enum Running {
    Belfry(Box<Belfry>),
    Peer { child: ChildProcess, command: Box<Command> },
}

/// The tests' folder of this checkout.
pub(crate) fn tests() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn peers() -> PathBuf {
    tests().join("load/peers")
}

impl Kind {
    /// Builds what is needed to start it.
    pub(crate) fn prepare(self) -> anyhow::Result<()> {
        match self {
            Self::Belfry | Self::BelfryNodes | Self::Baseline => Ok(()),
            Self::Floor => build("belfry-tests", "belfry-load-floor").map(drop),
            Self::Node => npm(&peers().join("node"), &[]),
            Self::Nest => npm(&peers().join("nest"), &["dist/main.js"]),
        }
    }

    pub(crate) fn is_belfry(self) -> bool {
        matches!(self, Self::Belfry | Self::BelfryNodes | Self::Baseline)
    }
}

/// Installs a package's dependencies, and builds what is missing of it.
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
    // Standard output is the report's.
    let output = command.output().with_context(|| format!("{command:?} cannot be run"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    Ok(())
}

/// Builds one of this checkout's executables as it is released.
pub(crate) fn build(package: &str, name: &str) -> anyhow::Result<PathBuf> {
    let target = target()?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "-p", package, "--bin", name]);
    run(command.arg("--target-dir").arg(&target).current_dir(tests()))?;
    Ok(target.join("release").join(name))
}

/// The folder of all builds, which this executable lies in.
fn target() -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe()?;
    let profile = this.ancestors().skip(1).find(|folder| !folder.ends_with("deps"));
    let target = profile.and_then(Path::parent).context("the target folder cannot be found")?;
    Ok(target.to_owned())
}

impl Server {
    /// Starts it on that queue and waits until it consumes.
    pub(crate) async fn start(
        kind: Kind,
        mode: Mode<'_>,
        rig: &Rig,
        queue: &Queue,
        bounds: Bounds,
    ) -> anyhow::Result<Self> {
        if kind.is_belfry() {
            let builder = belfry(kind, mode, rig, queue, bounds)?;
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

    /// SIGKILL, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        match &mut self.running {
            Running::Belfry(belfry) => belfry.kill(),
            Running::Peer { child, .. } => child.kill(),
        }
    }

    /// Starts it again, with the same address and queue.
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

    /// `None` if it is a peer.
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

    /// Fails with what it said if it has ended.
    pub(crate) fn must_run(&mut self) -> anyhow::Result<()> {
        let (runs, said) = match &mut self.running {
            Running::Belfry(belfry) => (belfry.is_running(), belfry.log()),
            Running::Peer { child, .. } => (child.is_running(), text(child)),
        };
        ensure!(runs, "{} has ended by itself:\n{said}", self.kind);
        Ok(())
    }
}

/// Starts a peer and waits until it consumes.
async fn launch(
    kind: Kind,
    command: &mut Command,
    address: SocketAddr,
) -> anyhow::Result<ChildProcess> {
    let child =
        ChildProcess::new(command, None).with_context(|| format!("{kind} cannot be run"))?;
    let words = format!("listening on {address}");
    let ready = child.wait_for(PATIENCE, |lines| {
        let mut out = lines.iter().filter(|line| line.stream == Stream::Out);
        out.any(|line| line.text.contains(&words)).then_some(())
    });
    ready.await.map_err(|why| anyhow!("{kind} does not start: {why}\n{}", text(&child)))?;
    Ok(child)
}

fn program(kind: Kind) -> anyhow::Result<Command> {
    Ok(match kind {
        Kind::Floor => Command::new(target()?.join("release/belfry-load-floor")),
        Kind::Nest => script("nest/dist/main.js"),
        _ => script("node/server.js"),
    })
}

fn script(path: &str) -> Command {
    let mut command = Command::new("node");
    command.arg(peers().join(path));
    command
}

fn text(child: &ChildProcess) -> String {
    let lines = child.lines();
    let last: Vec<_> = lines.iter().rev().take(30).map(|line| line.text.as_str()).collect();
    last.into_iter().rev().collect::<Vec<_>>().join("\n")
}

fn belfry(
    kind: Kind,
    mode: Mode<'_>,
    rig: &Rig,
    queue: &Queue,
    bounds: Bounds,
) -> anyhow::Result<Builder> {
    // Several nodes may share one queue.
    let port = free_port();
    let node = format!("load-{port}");
    queue.names.will_delete_queue(queue.names.node_queue(&node));
    let mut builder = Belfry::builder()
        .program(rig.program(kind)?)
        .broker(&queue.names)
        .setting("node.name", node)
        .setting("auth.hs256_secret", SECRET)
        .setting("log.level", "warn")
        // Attacks count the lines that name the attacker.
        .setting("log.format", "json");
    if bounds == Bounds::Off {
        let unknown = match kind {
            Kind::Baseline => rig.options.baseline_without.as_slice(),
            _ => &[],
        };
        builder = without_bounds(builder, unknown);
    }
    builder = builder.setting("amqp.ingest.only_node", kind != Kind::BelfryNodes);
    builder = match mode {
        Mode::Forward => builder.setting("amqp.ingest.mode", "forward"),
        Mode::Store(database) => builder.database(database),
    };
    for (path, value) in &rig.options.settings {
        builder = builder.setting(path, value);
    }
    Ok(builder)
}

/// Switches every limit off but those that this build does not have.
fn without_bounds(mut builder: Builder, unknown: &[String]) -> Builder {
    // Limits per address and user: all of the tool's clients are one address, and its service is one user.
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
        if !unknown.contains(&setting) {
            builder = builder.setting(&setting, 0);
        }
    }
    builder
}
