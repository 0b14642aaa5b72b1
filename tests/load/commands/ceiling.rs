//! `ceiling`: the highest rate that a server sustains.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::events::Form;
use crate::figures::{medians, show};
use crate::machine;
use crate::options::{Common, RunPlan, duration};
use crate::outcome::Outcome;
use crate::report::{Report, Table};
use crate::rig::Rig;
use crate::schedule::EventTiming;
use crate::servers::{Mode, ServerKind};
use crate::trial::{Clients, Load, Trial};

/// Finds the highest rate that each server sustains: p99 below a limit, no lost events, no growing queue.
///
/// The rate is raised in steps until the server cannot sustain it. Then the interval between the last two rates is
/// bisected. A rate counts as not sustained only if a second attempt fails, too.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    plan: RunPlan,
    /// The first rate, in events per second.
    #[arg(long, default_value_t = 4_000.0)]
    from: f64,
    /// Factor of each step up.
    #[arg(long, default_value_t = 1.5)]
    step: f64,
    /// Precision of the search, in percent.
    #[arg(long, default_value_t = 5.0)]
    within: f64,
    /// How long each rate is measured.
    #[arg(long, default_value = "6s", value_parser = duration)]
    window: Duration,
    /// Limit of the 99th percentile, in milliseconds.
    #[arg(long, default_value_t = 100.0)]
    p99: f64,
    #[command(flatten)]
    timing: EventTiming,
}

#[derive(Debug, Serialize)]
struct Sample {
    run: u32,
    server: String,
    #[serde(skip)]
    kind: ServerKind,
    /// The outcome at the highest sustained rate.
    ceiling: Option<Outcome>,
    /// The outcomes of all attempts.
    tried: Vec<Outcome>,
}

pub(crate) async fn run(options: &Options, common: &Common) -> anyhow::Result<()> {
    let plan = &options.plan;
    let rig = super::rig(common, &plan.turns.servers, false).await?;
    let facts = machine::facts(&rig, &plan.turns.servers).await;
    let mut report = Report::new("Forwarded events: the highest rate", facts);
    let mut runs = Vec::new();
    for (run, kind) in plan.turns.iter() {
        let found = search(options, &rig, kind, run).await?;
        report.raw(&found);
        runs.push(found);
    }
    report.table(table(options, &runs));
    report.publish(common)
}

/// A search between the highest sustained rate and the lowest rate that was not sustained.
#[derive(Debug, Clone, Copy)]
struct Search {
    /// The highest sustained rate; 0 before there is one.
    sustained: f64,
    /// The lowest rate that was not sustained.
    fails: Option<f64>,
    /// The factor of each step up.
    step: f64,
    /// Precision in percent.
    within: f64,
}

impl Search {
    /// The next rate to try; `None` when the precision is reached, or when no rate from `first / 64` on is
    /// sustained.
    fn next(self, first: f64) -> Option<f64> {
        match self.fails {
            None if self.sustained == 0.0 => Some(first),
            None => Some(self.sustained * self.step),
            Some(fails) if self.sustained == 0.0 && fails < first / 64.0 => None,
            Some(fails) if self.sustained == 0.0 => Some(fails / 2.0),
            Some(fails) if fails / self.sustained <= 1.0 + self.within / 100.0 => None,
            Some(fails) => Some(f64::midpoint(self.sustained, fails)),
        }
    }

    fn record(&mut self, rate: f64, sustained: bool) {
        if sustained {
            self.sustained = rate;
        } else {
            self.fails = Some(rate);
        }
    }
}

async fn search(
    options: &Options,
    rig: &Rig,
    kind: ServerKind,
    run: u32,
) -> anyhow::Result<Sample> {
    let clients = Clients::each_alone(options.plan.connections);
    let mut trial = Trial::open(rig, kind, Mode::Forward, clients).await?;
    let mut found =
        Sample { run, server: kind.to_string(), kind, ceiling: None, tried: Vec::new() };
    let mut search = Search {
        sustained: 0.0,
        fails: None,
        step: options.step.max(1.01),
        within: options.within,
    };
    while let Some(rate) = search.next(options.from) {
        let mut outcome = attempt(options, &mut trial, run, rate).await?;
        if !is_sustained(options, &outcome) {
            found.tried.push(outcome);
            outcome = attempt(options, &mut trial, run, rate).await?;
        }
        let sustained = is_sustained(options, &outcome);
        search.record(rate, sustained);
        found.tried.push(outcome.clone());
        if sustained {
            found.ceiling = Some(outcome);
        }
    }
    trial.close().await;
    Ok(found)
}

async fn attempt(
    options: &Options,
    trial: &mut Trial<'_>,
    run: u32,
    rate: f64,
) -> anyhow::Result<Outcome> {
    let (timing, warm_up) = (options.timing.in_run(run), Duration::from_secs(1));
    let load = Load { form: Form::Forward, rate, timing, warm_up, time: options.window };
    let outcome = trial.send(load).await?;
    eprintln!(
        "{} at {}/s: p99 {} ms, {} lost, {} queued: {}",
        trial.server.kind,
        show(rate),
        show(outcome.p99_ms),
        outcome.lost,
        outcome.queued,
        if is_sustained(options, &outcome) { "sustained" } else { "not sustained" }
    );
    Ok(outcome)
}

fn is_sustained(options: &Options, outcome: &Outcome) -> bool {
    // A server that is too slow for the rate has a growing queue. In a short window, its p99 may still be below the
    // limit, so the queue must not exceed the events that are due within the time of that limit.
    let max_queued = outcome.rate * options.p99 / 1_000.0;
    outcome.lost == 0
        && outcome.duplicated == 0
        && outcome.cut_off == 0
        && outcome.p99_ms < options.p99
        && crate::figures::float(outcome.queued) <= max_queued
}

fn table(options: &Options, runs: &[Sample]) -> Table {
    let note = format!(
        "{} connections, events {}, windows of {:?}, p99 below {} ms, medians of {} runs. The lateness of the \
         publisher is the time from when an event was due until it was written to the broker; it is a part of the \
         latency.",
        options.plan.connections,
        options.timing.arrivals.describe(),
        options.window,
        options.p99,
        options.plan.turns.runs
    );
    let columns = [
        "server",
        "events/s",
        "of each run",
        "µs CPU per event there",
        "p50 ms",
        "p99 ms",
        "broker µs",
        "published/s",
        "p99 µs late",
    ];
    let mut table = Table::new(&note, &columns);
    for &kind in &options.plan.turns.servers {
        let found = runs.iter().filter(|run| run.kind == kind).map(|run| run.ceiling.as_ref());
        let median_of = medians(found.clone().flatten());
        let each = found.map(|ceiling| show(ceiling.map_or(f64::NAN, |outcome| outcome.rate)));
        table.row([
            kind.to_string(),
            median_of(|outcome| outcome.rate),
            each.collect::<Vec<_>>().join(" "),
            median_of(|outcome| outcome.cost.server),
            median_of(|outcome| outcome.p50_ms),
            median_of(|outcome| outcome.p99_ms),
            median_of(|outcome| outcome.cost.broker),
            median_of(|outcome| outcome.published_per_second),
            median_of(|outcome| outcome.publisher_p99_late_us),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(limit: f64) -> f64 {
        let mut search = Search { sustained: 0.0, fails: None, step: 1.5, within: 5.0 };
        for _ in 0..40 {
            let Some(rate) = search.next(4_000.0) else { return search.sustained };
            search.record(rate, rate <= limit);
        }
        panic!("the search does not end");
    }

    #[test]
    fn search_ends_just_below_the_limit() {
        for limit in [100.0, 3_999.0, 4_000.0, 24_400.0, 100_000.0] {
            let found = found(limit);
            assert!(found <= limit && found > limit / 1.06, "{limit}: {found}");
        }
        assert!(found(10.0).abs() < 1e-9, "no rate is sustained");
    }
}
