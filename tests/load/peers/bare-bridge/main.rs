//! `belfry-load-bare-bridge`: a bare bridge from RabbitMQ to Socket.IO, as a lower bound for the load tests.
//!
//! It shows the minimal cost of the task on this machine, with the same RabbitMQ client library as Belfry. It
//! reads the messages of one queue, looks up the user's sockets, and writes both frames of an event to each
//! socket at once, from the task that read the message. If a server costs more, the difference is the price
//! of its features.
//!
//! It is not a usable server:
//!
//! * it **does not verify tokens**: it reads `sub` and checks neither signature nor expiry;
//! * it serves only WebSockets and one namespace, ignores events of clients, and has no acknowledgements or
//!   fragments;
//! * it stores, resends and counts nothing, and ends when it loses the broker.
//!
//! It keeps the properties without which the comparison would be unfair: frames stay whole and in order, and
//! a slow consumer does not delay others. A client is disconnected when its send queue is full, or when it
//! misses a heartbeat.
//!
//! Settings are environment variables, described in `../README.md`.

mod consumer;
mod frames;
mod heartbeat;
mod session;
mod socket;
mod users;

use std::env;
use std::io::{self, Write};
use std::sync::Arc;

use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::consumer::Consumer;
use crate::heartbeat::Heartbeat;
use crate::users::Users;

/// The state that all connections share.
#[derive(Debug, Default)]
struct Hub {
    users: Users,
    heartbeat: Heartbeat,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    allow_many_sockets()?;
    let mut terminated = signal(SignalKind::terminate())?;
    let hub = Arc::new(Hub::default());

    let listener = TcpListener::bind(setting("PEER_LISTEN")?).await?;
    let (url, queue) = (setting("PEER_AMQP_URL")?, setting("PEER_QUEUE")?);
    let (connection, consumer) = Consumer::start(&url, &queue, ack_each()?).await?;
    writeln!(io::stdout(), "listening on {}", listener.local_addr()?)?;

    // The tasks are spawned, so that they run on the runtime's worker threads. The thread of `main` is not
    // one of them.
    let heartbeats = Arc::clone(&hub);
    tokio::spawn(async move { heartbeats.heartbeat.run().await });
    let consuming = tokio::spawn(consumer.run(Arc::clone(&hub)));
    let accepting = tokio::spawn(accept(listener, hub));

    tokio::select! {
        _ = terminated.recv() => connection.close(200, "terminated".into()).await?,
        ended = consuming => ended??,
        ended = accepting => ended??,
    }
    Ok(())
}

async fn accept(listener: TcpListener, hub: Arc<Hub>) -> anyhow::Result<()> {
    loop {
        let (stream, _) = listener.accept().await.context("cannot accept connections")?;
        tokio::spawn(session::run(stream, Arc::clone(&hub)));
    }
}

fn setting(name: &str) -> anyhow::Result<String> {
    env::var(name).with_context(|| format!("the environment variable {name} is required"))
}

fn ack_each() -> anyhow::Result<bool> {
    match setting("PEER_ACK")?.as_str() {
        "each" => Ok(true),
        "none" => Ok(false),
        other => anyhow::bail!("PEER_ACK must be \"each\" or \"none\", not {other:?}"),
    }
}

/// Raises the soft limit of open files to the hard limit, as Node does.
fn allow_many_sockets() -> io::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}
