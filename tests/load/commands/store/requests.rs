//! Creating and reading by REST.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::time::Instant;

use super::Options;
use super::sample::Sample;
use crate::events::{Events, Form};
use crate::figures::{float, ms_at};
use crate::rest::{Caller, Requests};
use crate::rig::Rig;
use crate::servers::Kind;
use crate::trial::Trial;

/// So many requests in flight that create notifications.
pub(super) async fn creates(
    options: &Options,
    rig: &Rig,
    trial: &mut Trial<'_>,
    in_flight: u64,
    run: u32,
) -> anyhow::Result<Sample> {
    // More than anybody creates in that time; what is not sent is not counted.
    let most = crate::figures::whole(options.duration.as_secs_f64() * 50_000.0);
    let (round, first) = trial.begin(most);
    let what = match trial.server.kind {
        Kind::Nest => "POST /notifications",
        _ => "POST /v1/notifications",
    };
    let requests =
        Requests { server: trial.server.address, good: 201, in_flight, time: options.duration };
    let (next, events) =
        (Arc::new(AtomicU64::new(first)), Events::for_users(Form::Store, options.connections));
    let token = rig.key.token("shop").scope("notifications:write").sign();
    let (before, begin) = (trial.clocks(), Instant::now());
    let callers = move |number| {
        let (next, mut events) = (Arc::clone(&next), events.clone());
        events.vary(number);
        let next = move |at| (what, events.request(next.fetch_add(1, Relaxed), at).to_string());
        Caller { token: token.clone(), next }
    };
    let answers = requests.run(callers).await?;
    let told = (trial.settle(&round, answers.good).await - begin).as_secs_f64();
    let cost = trial.cost_since(&before, answers.good);
    let fate = round.fate(answers.good + answers.refused);
    let latency = trial.fleet.take_latency();
    Ok(Sample {
        per_second: float(answers.good) / answers.seconds,
        told_per_second: float(fate.delivered) / told,
        answer_p50_ms: ms_at(&answers.latency, 50.0),
        answer_p99_ms: ms_at(&answers.latency, 99.0),
        socket_p50_ms: ms_at(&latency, 50.0),
        socket_p99_ms: ms_at(&latency, 99.0),
        lost: fate.lost.saturating_sub(answers.refused),
        doubled: fate.doubled,
        refused: answers.refused,
        ..Sample::of(run, &trial.server.kind.to_string(), "rest", cost)
    })
}

/// So many requests in flight that read, each of a user of its own.
pub(super) async fn reads(
    options: &Options,
    rig: &Rig,
    trial: &Trial<'_>,
    in_flight: u64,
    run: u32,
) -> anyhow::Result<Sample> {
    const WHAT: [&str; 4] = [
        "GET /v1/notifications?limit=20",
        "GET /v1/notifications/unread-count",
        "GET /v1/notifications?limit=20&unread=true",
        "GET /v1/notifications/unread-count",
    ];

    let requests =
        Requests { server: trial.server.address, good: 200, in_flight, time: options.duration };
    let (key, users) = (rig.key.clone(), options.connections);
    let before = trial.clocks();
    let callers = move |number: u64| {
        let mut what = WHAT.iter().cycle();
        let next = move |_| (*what.next().expect("it has no end"), String::new());
        Caller { token: key.token(&format!("u{}", number % users)).sign(), next }
    };
    let answers = requests.run(callers).await?;
    let cost = trial.cost_since(&before, answers.good);
    Ok(Sample {
        per_second: float(answers.good) / answers.seconds,
        answer_p50_ms: ms_at(&answers.latency, 50.0),
        answer_p99_ms: ms_at(&answers.latency, 99.0),
        refused: answers.refused,
        ..Sample::of(run, &trial.server.kind.to_string(), "reads", cost)
    })
}
