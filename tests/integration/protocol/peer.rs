//! A server under test (a peer), the cases that run against it, and the report on failed cases.

use std::net::SocketAddr;
use std::time::Duration;

use belfry_tests::clients::{Device, run_script};
use futures_util::future::{LocalBoxFuture, join_all};
use serde_json::{Value, json};

/// A server under test.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    /// `/engine.io/` or `/socket.io/`.
    pub(super) path: &'static str,
    /// The second namespace of a Socket.IO server; empty for an Engine.IO server.
    pub(super) namespace: &'static str,
    pub(super) timers: Timers,
}

/// The intervals and timeouts of a server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timers {
    pub(super) ping_interval: Duration,
    /// How long a pong may take.
    pub(super) ping_timeout: Duration,
    /// How long a WebSocket may take from its opening to the upgrade packet.
    pub(super) upgrade_timeout: Duration,
    /// How long a session may be without a namespace.
    pub(super) connect_timeout: Duration,
}

const NEVER: Duration = Duration::from_hours(1);

impl Timers {
    /// Frequent pings, and timeouts that never expire, however busy the machine is.
    pub(super) const LONG: Self = Self {
        ping_interval: Duration::from_millis(300),
        ping_timeout: NEVER,
        upgrade_timeout: NEVER,
        connect_timeout: NEVER,
    };
    pub(super) const WITHOUT_PINGS: Self = Self { ping_interval: NEVER, ..Self::LONG };
    pub(super) const SHORT_PING_TIMEOUT: Self =
        Self { ping_timeout: Duration::from_millis(200), ..Self::LONG };
    pub(super) const SHORT_UPGRADE_TIMEOUT: Self =
        Self { upgrade_timeout: Duration::from_secs(1), ..Self::LONG };
    pub(super) const SHORT_CONNECT_TIMEOUT: Self =
        Self { connect_timeout: Duration::from_secs(1), ..Self::LONG };
}

/// The largest body and the largest WebSocket message that a server accepts, in bytes.
pub(super) const MAX_PAYLOAD: usize = 1_000_000;

/// One rule of the protocol.
pub(super) struct Case {
    /// The behaviour of the server.
    pub(super) name: &'static str,
    pub(super) timers: Timers,
    pub(super) run: for<'a> fn(&'a Peer) -> LocalBoxFuture<'a, anyhow::Result<()>>,
}

/// Makes a [`Case`] of each of these functions. A case runs against a server with these timers.
macro_rules! cases {
    ($timers:expr; $($case:ident),+ $(,)?) => {
        vec![$(crate::protocol::peer::Case {
            name: stringify!($case),
            timers: $timers,
            run: |peer| Box::pin($case(peer)),
        }),+]
    };
}
pub(super) use cases;

/// A case that a server is known to fail.
pub(super) struct Difference {
    pub(super) case: &'static str,
    pub(super) reason: &'static str,
    pub(super) fails: Fails,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fails {
    Always,
    /// The outcome depends on a race between two tasks of the server.
    Sometimes,
}

/// Runs all cases at once, each against a new server, and checks that exactly the known ones fail.
pub(super) async fn check(
    cases: &[Case],
    start: impl AsyncFn(Timers) -> Peer,
    known: &[Difference],
) {
    let start = &start;
    let outcomes = join_all(cases.iter().map(|case| async move {
        let peer = start(case.timers).await;
        (case.run)(&peer).await.map_err(|error| format!("{error:#}"))
    }));
    let names = cases.iter().map(|case| case.name);
    check_outcomes(names.zip(outcomes.await), known);
}

/// Runs the scenarios of the JavaScript client with these transports, and checks that exactly the known ones fail.
pub(super) async fn check_scenarios(peer: &Peer, transports: &[&str], known: &[Difference]) {
    let config = json!({
        "url": format!("http://{}", peer.address),
        "namespace": peer.namespace,
        "transports": transports,
    });
    let outcomes = run_script("scenarios.mjs", &config).await;
    assert!(!outcomes.is_empty(), "no scenario ran");
    let outcomes = outcomes.iter().map(|outcome| {
        let error = outcome["error"].as_str().map(str::to_owned);
        (outcome["name"].as_str().expect("a scenario has a name"), error.map_or(Ok(()), Err))
    });
    check_outcomes(outcomes, known);
}

/// Connects, emits, receives acknowledgements, disconnects and reconnects with version 3 of the client.
pub(super) async fn check_version_3(peer: &Peer, transports: &[&str]) {
    let device = Device::node3(&format!("http://{}", peer.address))
        .namespace(peer.namespace)
        .option("transports", transports)
        .auth("token", "t");
    let device = device.connect().await;
    assert_eq!(device.expect("auth").await, json!({ "token": "t" }));
    assert_eq!(device.call("message-with-ack", "one").await, "one");
    device.emit("message", "two");
    assert_eq!(device.expect("message-back").await, "two");
    device.drop_connection();
    device.of_kind("engine_close").await;
    device.disconnected().await;
    device.connected().await;
    assert_eq!(device.call("message-with-ack", "three").await, "three");
    device.disconnect();
    assert_eq!(device.disconnected().await, "io client disconnect");
    // Until this event, a reconnect would use the transport that is still closing.
    device.of_kind("engine_close").await;
    device.reconnect();
    device.connected().await;
    device.emit("leave", Value::Null);
    assert_eq!(device.disconnected().await, "io server disconnect");
}

fn check_outcomes<'a>(
    outcomes: impl Iterator<Item = (&'a str, Result<(), String>)>,
    known: &[Difference],
) {
    let mut report = Vec::new();
    let mut without_case: Vec<_> = known.iter().map(|difference| difference.case).collect();
    for (name, outcome) in outcomes {
        without_case.retain(|case| *case != name);
        match (outcome, known.iter().find(|difference| difference.case == name)) {
            (Ok(()), Some(Difference { fails: Fails::Always, .. })) => {
                report.push(format!("{name}: passes; remove the known difference"));
            }
            (Ok(()), _) => {}
            (Err(error), Some(Difference { reason, .. })) => {
                println!("{name}: fails as expected, {reason}: {error}");
            }
            (Err(error), None) => report.push(format!("{name}: {error}")),
        }
    }
    report.extend(without_case.iter().map(|case| format!("{case}: no such case")));
    assert!(report.is_empty(), "{}", report.join("\n"));
}
