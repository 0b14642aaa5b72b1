//! The keeper: the process that starts servers and takes them down when its input ends.
//!
//! `belfry-test-servers keep postgres|rabbitmq [--management]` keeps one server for one test process:
//! it writes a JSON line when the server is ready, and one more to each order that it reads.
//!
//! `belfry-test-servers` alone keeps one of each for many test processes: it writes the `export` lines
//! that a shell evaluates, then `# ready`.

use std::io::{BufRead, Write};
use std::process::ExitCode;
use std::thread;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::{Access, Kind, MANAGEMENT_VARIABLE, docker, given, local};

/// A server that the keeper has started.
#[async_trait(?Send)]
pub(super) trait Server {
    /// How tests reach it. It stays the same over stops and starts.
    fn access(&self) -> Access;

    /// Starts it again with its data, and waits until it serves.
    async fn start(&mut self) -> anyhow::Result<()>;

    /// Stops it in good order, keeping its data.
    async fn stop(&mut self) -> anyhow::Result<()>;

    /// Runs RabbitMQ's `rabbitmqctl` with these words.
    async fn control(&mut self, words: &[&str]) -> anyhow::Result<()> {
        anyhow::bail!("only RabbitMQ can do {words:?}")
    }

    /// Ends it as a power cut would, keeping what it had written.
    async fn kill(&mut self) -> anyhow::Result<()>;

    /// Ends it and leaves nothing of it.
    async fn remove(self: Box<Self>) -> anyhow::Result<()>;
}

/// What a test process may ask of its keeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Start,
    Stop,
    Kill,
    /// Have RabbitMQ close everybody's connection.
    CloseConnections,
    /// Have RabbitMQ say that its memory is full: who publishes is blocked.
    RaiseMemoryAlarm,
    ClearMemoryAlarm,
}

impl Order {
    const ALL: [Self; 6] = [
        Self::Start,
        Self::Stop,
        Self::Kill,
        Self::CloseConnections,
        Self::RaiseMemoryAlarm,
        Self::ClearMemoryAlarm,
    ];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Kill => "kill",
            Self::CloseConnections => "close-connections",
            Self::RaiseMemoryAlarm => "raise-memory-alarm",
            Self::ClearMemoryAlarm => "clear-memory-alarm",
        }
    }

    fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|order| order.word() == word)
    }
}

/// What a keeper answers, one JSON line each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    /// The server serves.
    Ready(Access),
    /// The order is carried out.
    Done,
    /// It could not be done; the sentence is for the person who runs the tests.
    Failed(String),
}

/// The keeper's `main`.
pub fn main(arguments: impl IntoIterator<Item = String>) -> ExitCode {
    let arguments: Vec<String> = arguments.into_iter().collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime needs no more than this machine has");
    let code = runtime.block_on(async {
        match words.as_slice() {
            [] => keep_both().await,
            ["keep", kind, options @ ..] if let Some(kind) = Kind::of_word(kind) => {
                keep_one(kind, options.contains(&"--management")).await
            }
            _ => {
                eprintln!("usage: belfry-test-servers [keep postgres|rabbitmq [--management]]");
                ExitCode::from(2)
            }
        }
    });
    // Not held up by a broken connection to an engine or a server.
    runtime.shutdown_background();
    code
}

async fn keep_one(kind: Kind, management: bool) -> ExitCode {
    let mut orders = Orders::new();
    let mut server = match start(kind, management).await {
        Ok(server) => server,
        Err(error) => {
            say(&Reply::Failed(format!("{error:#}")));
            return ExitCode::FAILURE;
        }
    };
    say(&Reply::Ready(server.access()));
    while let Some(order) = orders.next().await {
        let done = match order {
            Order::Start => server.start().await,
            Order::Stop => server.stop().await,
            Order::Kill => server.kill().await,
            Order::CloseConnections => {
                server.control(&["close_all_connections", "--global", "maintenance"]).await
            }
            Order::RaiseMemoryAlarm => server.control(&["set_vm_memory_high_watermark", "0"]).await,
            Order::ClearMemoryAlarm => {
                server.control(&["set_vm_memory_high_watermark", "0.9"]).await
            }
        };
        say(&match done {
            Ok(()) => Reply::Done,
            Err(error) => Reply::Failed(format!("{kind} did not {}: {error:#}", order.word())),
        });
    }
    remove(server).await
}

async fn keep_both() -> ExitCode {
    let mut orders = Orders::new();
    let (postgres, rabbit) =
        tokio::join!(start_unless_given(Kind::Postgres), start_unless_given(Kind::Rabbit));
    let mut code = ExitCode::SUCCESS;
    let mut started = Vec::new();
    for (kind, server) in [(Kind::Postgres, postgres), (Kind::Rabbit, rabbit)] {
        match server {
            Ok((access, server)) => {
                say_line(&format!("export {}='{}'", kind.url_variable(), access.url));
                if let Some(url) = access.management {
                    say_line(&format!("export {MANAGEMENT_VARIABLE}='{url}'"));
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
        say_line("# ready");
        while orders.next().await.is_some() {}
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

/// Brings a server, by Docker where that works, else by the programs of this machine.
async fn start(kind: Kind, management: bool) -> anyhow::Result<Box<dyn Server>> {
    match docker::start(kind, management).await {
        Ok(Some(server)) => return Ok(server),
        Ok(None) => {}
        Err(error) => eprintln!("{kind}: Docker is there but cannot give it: {error:#}"),
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

fn say(reply: &Reply) {
    say_line(&serde_json::to_string(reply).expect("a reply is plain data"));
}

/// Writes a line, or not: that nobody listens any more is learnt from the end of the input.
fn say_line(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// The orders from standard input. They end with it, or with a signal to end.
struct Orders(mpsc::UnboundedReceiver<Option<Order>>);

impl Orders {
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
        // A thread of its own: it may wait for a line until the process is gone.
        thread::spawn(move || {
            for line in std::io::stdin().lock().lines() {
                let Ok(line) = line else { break };
                if let Some(order) = Order::of_word(line.trim()) {
                    let _ = sender.send(Some(order));
                }
            }
            let _ = sender.send(None);
        });
        Self(receiver)
    }

    async fn next(&mut self) -> Option<Order> {
        self.0.recv().await.flatten()
    }
}
