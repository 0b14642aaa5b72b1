//! `belfry-load-floor`: the practical floor that the load tests measure against.
//!
//! What the task costs at the least on this machine, with the client library for RabbitMQ that Belfry
//! has too: messages of one queue are read, their user's sockets looked up, both frames of an event
//! written to each in one go, from the task that read the message. What a server pays beyond this, it
//! pays for something.
//!
//! It is no server to serve anybody with:
//!
//! * it **takes every token's word**: `sub` is read, no signature or expiry is checked;
//! * websocket only, one namespace, no event of a client's is heard, no acknowledgements, no fragments;
//! * nothing is stored, sent again or counted, and when the broker goes away, so does the program.
//!
//! What it does keep is what would be cheating to leave out: frames stay whole and in order, a slow
//! device does not hold up others and is cut off when too much waits for it, and so is one that no
//! longer answers pings.
//!
//! Settings are environment variables; the README beside this folder has them.

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

/// What all connections share.
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

    // Tasks of their own, for the runtime's workers: the thread of `main` is none of them.
    let beating = Arc::clone(&hub);
    tokio::spawn(async move { beating.heartbeat.run().await });
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
        let (stream, _) = listener.accept().await.context("no more connections")?;
        tokio::spawn(session::run(stream, Arc::clone(&hub)));
    }
}

fn setting(name: &str) -> anyhow::Result<String> {
    env::var(name).with_context(|| format!("{name} is needed"))
}

fn ack_each() -> anyhow::Result<bool> {
    match setting("PEER_ACK")?.as_str() {
        "each" => Ok(true),
        "none" => Ok(false),
        other => anyhow::bail!("PEER_ACK is \"each\" or \"none\", not {other:?}"),
    }
}

/// As Node does by itself: as many files as one may have, not as few as one has by default.
fn allow_many_sockets() -> io::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}
