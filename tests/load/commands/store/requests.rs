//! Creating and reading notifications by REST.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::time::Instant;

use super::Options;
use super::sample::Sample;
use crate::events::{Events, Form};
use crate::figures::{float, ms_at};
use crate::rest::{Caller, Requests};
use crate::rig::Rig;
use crate::servers::ServerKind;
use crate::trial::Trial;

/// Measures `in_flight` concurrent requests that create notifications.
pub(super) async fn creates(
    options: &Options,
    rig: &Rig,
    trial: &mut Trial<'_>,
    in_flight: u64,
    run: u32,
) -> anyhow::Result<Sample> {
    // More requests than a server can answer in this time. Requests that are not sent are not counted.
    let max_requests = crate::figures::whole(options.duration.as_secs_f64() * 50_000.0);
    let (round, first) = trial.begin(max_requests);
    let target = match trial.server.kind {
        ServerKind::Nest => "POST /notifications",
        _ => "POST /v1/notifications",
    };
    let requests = Requests {
        server: trial.server.address,
        good_status: 201,
        in_flight,
        time: options.duration,
    };
    let (next, events) =
        (Arc::new(AtomicU64::new(first)), Events::for_users(Form::Store, options.connections));
    let token = rig.key.token("shop").scope("notifications:write").sign();
    let (before, begin) = (trial.cpu_snapshot(), Instant::now());
    let callers = move |number| {
        let (next, mut events) = (Arc::clone(&next), events.clone());
        events.vary(number);
        let next = move |at| (target, events.request(next.fetch_add(1, Relaxed), at).to_string());
        Caller { token: token.clone(), next }
    };
    let results = requests.run(callers).await?;
    let seconds = (trial.wait_for_events(&round, results.good).await - begin).as_secs_f64();
    let cost = trial.cost_since(&before, results.good);
    let delivery = round.delivery_counts(results.good + results.refused);
    let latency = trial.fleet.take_latency();
    Ok(Sample {
        per_second: float(results.good) / results.seconds,
        delivered_per_second: float(delivery.delivered) / seconds,
        response_p50_ms: ms_at(&results.latency, 50.0),
        response_p99_ms: ms_at(&results.latency, 99.0),
        socket_p50_ms: ms_at(&latency, 50.0),
        socket_p99_ms: ms_at(&latency, 99.0),
        lost: delivery.lost.saturating_sub(results.refused),
        duplicated: delivery.duplicated,
        refused: results.refused,
        ..Sample::of(run, &trial.server.kind.to_string(), "rest", cost)
    })
}

/// Measures `in_flight` concurrent requests that read, each for another user.
pub(super) async fn reads(
    options: &Options,
    rig: &Rig,
    trial: &Trial<'_>,
    in_flight: u64,
    run: u32,
) -> anyhow::Result<Sample> {
    const TARGETS: [&str; 4] = [
        "GET /v1/notifications?limit=20",
        "GET /v1/notifications/unread-count",
        "GET /v1/notifications?limit=20&unread=true",
        "GET /v1/notifications/unread-count",
    ];

    let requests = Requests {
        server: trial.server.address,
        good_status: 200,
        in_flight,
        time: options.duration,
    };
    let (key, users) = (rig.key.clone(), options.connections);
    let before = trial.cpu_snapshot();
    let callers = move |number: u64| {
        let mut targets = TARGETS.iter().cycle();
        let next = move |_| (*targets.next().expect("a cycle has no end"), String::new());
        Caller { token: key.token(&format!("u{}", number % users)).sign(), next }
    };
    let results = requests.run(callers).await?;
    let cost = trial.cost_since(&before, results.good);
    Ok(Sample {
        per_second: float(results.good) / results.seconds,
        response_p50_ms: ms_at(&results.latency, 50.0),
        response_p99_ms: ms_at(&results.latency, 99.0),
        refused: results.refused,
        ..Sample::of(run, &trial.server.kind.to_string(), "reads", cost)
    })
}
