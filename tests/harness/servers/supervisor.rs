//! The server supervisor: a process that starts servers and removes them when its input ends.
//!
//! `belfry-test-servers run postgres|rabbitmq [--management]` runs one server for one test process: it
//! writes a JSON line when the server is ready, and one for each command that it reads.
//!
//! `belfry-test-servers` without arguments runs one PostgreSQL and one RabbitMQ for many test processes: it
//! writes `export` lines for a shell to evaluate, then `# ready`.

use std::io::{BufRead, Write};
use std::process::ExitCode;
use std::thread;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::{Access, Kind, MANAGEMENT_VARIABLE, docker, given, local};

/// A server that the supervisor has started.
#[async_trait(?Send)]
pub(super) trait Server {
    /// How tests reach the server. A restart does not change it.
    fn access(&self) -> Access;

    /// Starts the server again with its data, and waits until it serves.
    async fn start(&mut self) -> anyhow::Result<()>;

    /// Shuts it down gracefully and keeps its data.
    async fn stop(&mut self) -> anyhow::Result<()>;

    /// Runs RabbitMQ's `rabbitmqctl` with these arguments.
    async fn control(&mut self, arguments: &[&str]) -> anyhow::Result<()> {
        anyhow::bail!("only RabbitMQ can do {arguments:?}")
    }

    /// Kills the server, like a crash, and keeps its data.
    async fn kill(&mut self) -> anyhow::Result<()>;

    /// Stops it and removes its data.
    async fn remove(self: Box<Self>) -> anyhow::Result<()>;
}

/// A command of a test process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServerCommand {
    Start,
    Stop,
    Kill,
    /// RabbitMQ closes all connections.
    CloseConnections,
    /// RabbitMQ raises its memory alarm, which blocks publishers.
    RaiseMemoryAlarm,
    ClearMemoryAlarm,
    /// RabbitMQ gets a user who may declare nothing.
    AddLimitedUser,
    /// RabbitMQ gets a user with [`MINIMAL_RIGHTS`].
    AddMinimalUser,
}

/// The name and password of the user that [`ServerCommand::AddLimitedUser`] adds.
pub(crate) const LIMITED_USER: (&str, &str) = ("limited", "limited");

/// The name and password of the user that [`ServerCommand::AddMinimalUser`] adds.
pub(crate) const MINIMAL_USER: (&str, &str) = ("minimal", "minimal");

/// The rights that the README gives to Belfry's user, as RabbitMQ's patterns for configure, write and read.
pub const MINIMAL_RIGHTS: [&str; 3] = [r"^belfry\.", r"^(belfry\.|amq\.default$)", r"^belfry\."];

impl ServerCommand {
    const ALL: [Self; 8] = [
        Self::Start,
        Self::Stop,
        Self::Kill,
        Self::CloseConnections,
        Self::RaiseMemoryAlarm,
        Self::ClearMemoryAlarm,
        Self::AddLimitedUser,
        Self::AddMinimalUser,
    ];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Kill => "kill",
            Self::CloseConnections => "close-connections",
            Self::RaiseMemoryAlarm => "raise-memory-alarm",
            Self::ClearMemoryAlarm => "clear-memory-alarm",
            Self::AddLimitedUser => "add-limited-user",
            Self::AddMinimalUser => "add-minimal-user",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|command| command.word() == word)
    }
}

/// An answer of the supervisor, one JSON line each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    /// The server accepts connections.
    Ready(Access),
    /// The command is done.
    Done,
    /// The command failed. The message is for the person who runs the tests.
    Failed(String),
}

/// The supervisor's `main`.
pub fn main(arguments: impl IntoIterator<Item = String>) -> ExitCode {
    let arguments: Vec<String> = arguments.into_iter().collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be created");
    let code = runtime.block_on(async {
        match words.as_slice() {
            [] => run_both().await,
            ["run", kind, options @ ..] if let Some(kind) = Kind::from_word(kind) => {
                run_one(kind, options.contains(&"--management")).await
            }
            _ => {
                eprintln!("usage: belfry-test-servers [run postgres|rabbitmq [--management]]");
                ExitCode::from(2)
            }
        }
    });
    // Do not wait for a blocked connection to a Docker engine or a server.
    runtime.shutdown_background();
    code
}

async fn run_one(kind: Kind, management: bool) -> ExitCode {
    let mut commands = Commands::new();
    let mut server = match start(kind, management).await {
        Ok(server) => server,
        Err(error) => {
            send_reply(&Reply::Failed(format!("{error:#}")));
            return ExitCode::FAILURE;
        }
    };
    send_reply(&Reply::Ready(server.access()));
    while let Some(command) = commands.next().await {
        let result = match command {
            ServerCommand::Start => server.start().await,
            ServerCommand::Stop => server.stop().await,
            ServerCommand::Kill => server.kill().await,
            ServerCommand::CloseConnections => {
                server.control(&["close_all_connections", "--global", "maintenance"]).await
            }
            ServerCommand::RaiseMemoryAlarm => {
                server.control(&["set_vm_memory_high_watermark", "0"]).await
            }
            ServerCommand::ClearMemoryAlarm => {
                server.control(&["set_vm_memory_high_watermark", "0.9"]).await
            }
            ServerCommand::AddLimitedUser => {
                let may_write = r"^(amq\.default|.*\.(ingest|events))$";
                add_user(server.as_mut(), LIMITED_USER, ["^$", may_write, ".*"]).await
            }
            ServerCommand::AddMinimalUser => {
                add_user(server.as_mut(), MINIMAL_USER, MINIMAL_RIGHTS).await
            }
        };
        send_reply(&match result {
            Ok(()) => Reply::Done,
            Err(error) => Reply::Failed(format!("{kind} did not {}: {error:#}", command.word())),
        });
    }
    remove(server).await
}

async fn add_user(
    server: &mut dyn Server,
    (user, password): (&str, &str),
    [configure, write, read]: [&str; 3],
) -> anyhow::Result<()> {
    server.control(&["add_user", user, password]).await?;
    server.control(&["set_permissions", user, configure, write, read]).await
}

async fn run_both() -> ExitCode {
    let mut commands = Commands::new();
    let (postgres, rabbit) =
        tokio::join!(start_unless_given(Kind::Postgres), start_unless_given(Kind::Rabbit));
    let mut code = ExitCode::SUCCESS;
    let mut started = Vec::new();
    for (kind, server) in [(Kind::Postgres, postgres), (Kind::Rabbit, rabbit)] {
        match server {
            Ok((access, server)) => {
                write_line(&format!("export {}='{}'", kind.url_variable(), access.url));
                if let Some(url) = access.management {
                    write_line(&format!("export {MANAGEMENT_VARIABLE}='{url}'"));
                }
                started.extend(server);
            }
            Err(error) => {
                eprintln!("{error:#}");
                code = ExitCode::FAILURE;
            }
        }
    }
    if code == ExitCode::SUCCESS {
        write_line("# ready");
        while commands.next().await.is_some() {}
    }
    for server in started {
        if remove(server).await != ExitCode::SUCCESS {
            code = ExitCode::FAILURE;
        }
    }
    code
}

type Started = (Access, Option<Box<dyn Server>>);

async fn start_unless_given(kind: Kind) -> anyhow::Result<Started> {
    if let Some(access) = given(kind) {
        return Ok((access, None));
    }
    let server = start(kind, true).await?;
    Ok((server.access(), Some(server)))
}

/// Starts a server in Docker if that is possible, else from the programs on this machine.
async fn start(kind: Kind, management: bool) -> anyhow::Result<Box<dyn Server>> {
    match docker::start(kind, management).await {
        Ok(Some(server)) => return Ok(server),
        Ok(None) => {}
        Err(error) => eprintln!("{kind}: Docker runs but cannot start it: {error:#}"),
    }
    local::start(kind, management).await
}

async fn remove(server: Box<dyn Server>) -> ExitCode {
    match server.remove().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("a test server is left behind: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn send_reply(reply: &Reply) {
    write_line(&serde_json::to_string(reply).expect("a reply is plain data"));
}

/// Writes to standard output. Errors are ignored: a test process that has ended has closed standard input,
/// too, which ends the supervisor.
fn write_line(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// The commands from standard input. They end with the input, or with SIGTERM, SIGINT or SIGHUP.
struct Commands(mpsc::UnboundedReceiver<Option<ServerCommand>>);

impl Commands {
    fn new() -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()] {
            let mut stream = signal(kind).expect("these signals can be handled");
            let sender = sender.clone();
            tokio::spawn(async move {
                stream.recv().await;
                let _ = sender.send(None);
            });
        }
        // In a separate thread, which may wait for a line until the process exits.
        thread::spawn(move || {
            for line in std::io::stdin().lock().lines() {
                let Ok(line) = line else { break };
                if let Some(command) = ServerCommand::from_word(line.trim()) {
                    let _ = sender.send(Some(command));
                }
            }
            let _ = sender.send(None);
        });
        Self(receiver)
    }

    async fn next(&mut self) -> Option<ServerCommand> {
        self.0.recv().await.flatten()
    }
}
