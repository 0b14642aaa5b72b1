//! Attacks on an inbox: what they cost the server, and a service that posts notifications meanwhile.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::Options;
use crate::attacks::{self, Attack, Inbox, Target};
use crate::bystander::Bystander;
use crate::figures::{float, median, medians, mib, ms_at, show};
use crate::fleet::{PER_ADDRESS, source};
use crate::probe::Probe;
use crate::process::Process;
use crate::report::{Report, Table};
use crate::rest::Http;
use crate::rig::Rig;
use crate::servers::{Bounds, Kind, Mode, Server};
use crate::trial::{Clients, Trial};

/// The user whose devices attack.
const ATTACKER: &str = "attacker";

/// Notifications in its inbox: as many as Belfry replays one by one.
const NOTIFICATIONS: usize = 1_000;

/// Bytes of each, most of them in its `data`.
const SIZE: usize = 15_000;

/// MiB above the server without clients.
const MOST_MEMORY: f64 = 128.0;

/// The p99 of posting notifications, as a multiple of that before the attack.
const MOST_DELAY: f64 = 2.0;

#[derive(Debug, Serialize)]
struct Sample {
    run: u32,
    server: String,
    #[serde(skip)]
    attack: Attack,
    #[serde(rename = "attack")]
    name: String,
    /// Resident memory before anybody has connected.
    empty_rss: u64,
    /// The highest since the attack has begun.
    peak_rss: u64,
    /// Some seconds after its end.
    after_rss: u64,
    calm_p50_ms: f64,
    calm_p99_ms: f64,
    attacked_p50_ms: f64,
    attacked_p99_ms: f64,
    /// Of the service's, during the attack.
    failed_posts: u64,
    /// Messages that the attackers have sent, or replays that they have asked for.
    requests: u64,
    /// Attackers' connections that were ended, or not let in, as they have noticed.
    ended: u64,
    /// Devices that the server has disconnected, by its own count; not a number if it did not answer.
    disconnected: f64,
    /// Lines of the server's log that name the attacker or a limit.
    log_lines: u64,
}

impl Sample {
    /// MiB above the empty server.
    fn peak(&self) -> f64 {
        mib(self.peak_rss) - mib(self.empty_rss)
    }

    fn after(&self) -> f64 {
        mib(self.after_rss) - mib(self.empty_rss)
    }

    fn ratio(&self) -> f64 {
        self.attacked_p99_ms / self.calm_p99_ms
    }
}

pub(super) async fn measure(
    options: &Options,
    rig: &Rig,
    attacks: &[Attack],
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut samples = Vec::new();
    for run in 1..=options.runs {
        // Peers keep no inboxes.
        for &kind in options.servers.iter().filter(|kind| kind.is_belfry()) {
            for &attack in attacks {
                let sample = once(options, rig, run, kind, attack).await?;
                eprintln!("{}", serde_json::to_string(&sample)?);
                report.raw(&sample);
                samples.push(sample);
            }
        }
    }
    report.table(table(options, &samples));
    Ok(())
}

async fn once(
    options: &Options,
    rig: &Rig,
    run: u32,
    kind: Kind,
    attack: Attack,
) -> anyhow::Result<Sample> {
    const WARM_UP: Duration = Duration::from_secs(3);
    const RECOVERY: Duration = Duration::from_secs(5);

    let database = rig.fresh_database().await;
    let clients = Clients { bounds: Bounds::Default, ..Clients::each_alone(0) };
    let mut trial = Trial::open(rig, kind, Mode::Store(database.url()), clients).await?;
    let (server, process) = (trial.server.address, trial.server.process());
    let target = prepare(rig, &trial.server).await.context("the attacker's inbox")?;
    let bystander = Bystander::start(server, &writer(rig))?;
    sleep(WARM_UP).await;

    let calm = bystander.begin_window();
    sleep(options.duration).await;
    process.reset_peak_rss();
    let attacked = bystander.begin_window();
    let attackers = attacks::begin(attack, target)?;
    watch(process, options.duration).await;
    // What begins from now on is no longer counted.
    bystander.begin_window();
    // Before the attackers leave: closing their connections looks like a reason to disconnect them, too.
    let (disconnected, log_lines) = traces(&trial.server).await;
    let (requests, ended) = attackers.end();
    sleep(RECOVERY).await;

    trial.server.must_run()?;
    // Work that the attackers have left behind may take more than they did.
    let (peak_rss, after_rss) = (process.peak_rss(), process.rss());
    let empty_rss = trial.entry.empty_rss;
    drop(bystander);
    trial.close().await;
    let (calm, failed_posts, attacked) = (calm.latency(), attacked.failed(), attacked.latency());
    Ok(Sample {
        run,
        server: kind.to_string(),
        attack,
        name: attack.to_string(),
        empty_rss,
        peak_rss,
        after_rss,
        calm_p50_ms: ms_at(&calm, 50.0),
        calm_p99_ms: ms_at(&calm, 99.0),
        attacked_p50_ms: ms_at(&attacked, 50.0),
        attacked_p99_ms: ms_at(&attacked, 99.0),
        failed_posts,
        requests,
        ended,
        disconnected,
        log_lines,
    })
}

/// Waits so long, but not until an attack has taken the machine's memory.
async fn watch(process: Process, time: Duration) {
    const TOO_MUCH: u64 = 4 << 30;

    let end = Instant::now() + time;
    while Instant::now() < end && process.peak_rss() < TOO_MUCH {
        sleep(Duration::from_millis(100)).await;
    }
}

/// Fills the attacker's inbox.
async fn prepare(rig: &Rig, server: &Server) -> anyhow::Result<Target> {
    /// As many as fit into a request, by default.
    const BATCH: usize = 60;

    let ids: Vec<String> = (0..NOTIFICATIONS).map(|number| format!("n{number}")).collect();
    let mut http = Http::connect(server.address, writer(rig)).await?;
    for ids in ids.chunks(BATCH) {
        let (status, body) = http.ask("POST /v1/notifications/batch", &batch(ids)).await?;
        ensure!(status == 201, "{status}, {}", String::from_utf8_lossy(body));
    }
    let token = rig.key.token(ATTACKER).sign();
    let probe = Probe {
        server: server.address,
        token: token.as_str().into(),
        from: source(0, PER_ADDRESS),
    };
    let epoch = probe.sign_in(None).await?.epoch;
    let inbox = Inbox { ids: ids.into(), epoch: epoch.into() };
    Ok(Target { server: server.address, token, inbox })
}

/// The token of a service that writes notifications.
fn writer(rig: &Rig) -> String {
    rig.key.token("shop").scope("notifications:write").sign()
}

/// A request for notifications with these ids.
fn batch(ids: &[String]) -> String {
    let notifications: Vec<Value> = ids.iter().map(|id| notification(id)).collect();
    json!({ "notifications": notifications }).to_string()
}

fn notification(id: &str) -> Value {
    json!({
        "id": id,
        "userId": ATTACKER,
        "type": "order.shipped",
        "title": "Your order is on its way",
        "data": { "text": "x".repeat(SIZE - 200) },
    })
}

/// What Belfry tells of the attackers: devices that it has disconnected, and lines of its log.
async fn traces(server: &Server) -> (f64, u64) {
    let Some(belfry) = server.belfry() else { return (f64::NAN, 0) };
    let asked = timeout(Duration::from_secs(5), metrics(belfry.admin_url())).await;
    let disconnected = match asked {
        Ok(Ok(metrics)) => float(sum(&metrics, "belfry_devices_closed_total")),
        _ => f64::NAN,
    };
    let lines = belfry.log().lines().filter(|line| names_attacker(line)).count();
    (disconnected, u64::try_from(lines).unwrap_or(u64::MAX))
}

async fn metrics(admin_url: &str) -> anyhow::Result<String> {
    let address = admin_url.trim_start_matches("http://").parse()?;
    let mut http = Http::connect(address, String::new()).await?;
    let (_, body) = http.ask("GET /metrics", "").await?;
    Ok(String::from_utf8_lossy(body).into_owned())
}

/// The sum of a counter over all its labels, in the Prometheus text format.
fn sum(metrics: &str, counter: &str) -> u64 {
    let values = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix(counter)?;
        // Of another counter the name would go on.
        let is_it = rest.starts_with(['{', ' ']);
        is_it.then(|| rest.rsplit(' ').next()?.parse::<u64>().ok())?
    });
    values.sum()
}

/// Whether a line of the log names the attacker or a limit.
fn names_attacker(line: &str) -> bool {
    let Ok(line) = serde_json::from_str::<Value>(line) else { return false };
    // Some formats keep the fields of an event apart.
    let fields = line.get("fields").unwrap_or(&line);
    fields["user"] == ATTACKER || fields.get("limit").is_some()
}

fn table(options: &Options, samples: &[Sample]) -> Table {
    let note = format!(
        "One user's devices, with {NOTIFICATIONS} notifications of {SIZE} bytes in the inbox, while a service posts up \
         to 100 notifications a second to others; {:?} before and during each attack, medians of {} runs. MiB are \
         above the server without clients; peak is the highest of the runs, after is 5 s after the attack. Ended are \
         connections that attackers have seen closed or rejected, disconnected the devices that the server counts as such. Passed: a \
         peak below {MOST_MEMORY} MiB, and the median ratio of p99 below {MOST_DELAY}.",
        options.duration, options.runs
    );
    let columns = [
        "server",
        "attack",
        "passed",
        "peak MiB",
        "MiB after",
        "POST p50 ms before",
        "during",
        "POST p99 ms before",
        "during",
        "ratio",
        "POSTs failed",
        "requests",
        "ended",
        "disconnected",
        "log lines",
    ];
    let mut table = Table::new(&note, &columns);
    for first in samples.iter().filter(|sample| sample.run == 1) {
        let of =
            samples.iter().filter(|one| one.server == first.server && one.attack == first.attack);
        let middle = medians(of.clone());
        let highest = of.clone().map(Sample::peak).fold(f64::NAN, f64::max);
        let passed = passes(highest, median(of.map(Sample::ratio)));
        table.row([
            first.server.clone(),
            first.name.clone(),
            if passed { "yes" } else { "NO" }.to_owned(),
            show(highest),
            middle(Sample::after),
            middle(|run| run.calm_p50_ms),
            middle(|run| run.attacked_p50_ms),
            middle(|run| run.calm_p99_ms),
            middle(|run| run.attacked_p99_ms),
            middle(Sample::ratio),
            middle(|run| float(run.failed_posts)),
            middle(|run| float(run.requests)),
            middle(|run| float(run.ended)),
            middle(|run| run.disconnected),
            middle(|run| float(run.log_lines)),
        ]);
    }
    table
}

/// A figure that is not a number, as where no request was answered, does not pass.
fn passes(peak_mib: f64, ratio: f64) -> bool {
    peak_mib < MOST_MEMORY && ratio < MOST_DELAY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_fits_into_a_request() {
        let ids: Vec<String> = (0..60).map(|number| format!("n{number}")).collect();
        let body = batch(&ids);
        assert!((60 * (SIZE - 200)..1 << 20).contains(&body.len()), "{}", body.len());
        let one = notification("n999").to_string().len();
        assert!((SIZE - 100..=SIZE).contains(&one), "{one}");
    }

    #[test]
    fn a_counter_is_summed_over_its_labels() {
        let metrics = "# TYPE closed_total counter\nclosed_total{reason=\"too_slow\"} 3\n\
            closed_total{reason=\"too_many_sessions\"} 4\nclosed_total_of_others 5\n";
        assert_eq!(sum(metrics, "closed_total"), 7);
        assert_eq!(sum("closed_total 2", "closed_total"), 2);
        assert_eq!(sum(metrics, "opened_total"), 0);
    }

    #[test]
    fn log_lines_that_name_the_attacker_or_a_limit_are_counted() {
        for (line, counts) in [
            (r#"{"level":"WARN","fields":{"message":"too slow","user":"attacker"}}"#, true),
            (r#"{"level":"WARN","message":"too slow","user":"attacker"}"#, true),
            (r#"{"level":"WARN","message":"a limit","limit":"messages_per_second"}"#, true),
            (r#"{"level":"WARN","message":"too slow","user":"u1"}"#, false),
            ("listening on http://127.0.0.1:8080", false),
        ] {
            assert_eq!(names_attacker(line), counts, "{line}");
        }
    }

    #[test]
    fn what_is_not_a_number_does_not_pass() {
        assert!(passes(127.9, 1.9));
        for (peak, ratio) in [(128.0, 1.0), (1.0, 2.0), (f64::NAN, 1.0), (1.0, f64::NAN)] {
            assert!(!passes(peak, ratio));
        }
    }
}
