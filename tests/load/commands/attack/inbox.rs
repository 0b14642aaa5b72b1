//! Attacks on an inbox: their cost for the server, and for a service that posts notifications meanwhile.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::{Group, Options, measure_each};
use crate::attacks::{self, Attack, Inbox, Target};
use crate::bystander::Bystander;
use crate::figures::{float, median, medians, mib, ms_at, show};
use crate::fleet::{PER_ADDRESS, source};
use crate::probe::Probe;
use crate::process::Process;
use crate::report::{Report, Table};
use crate::rest::Http;
use crate::rig::Rig;
use crate::servers::{Limits, Mode, Server, ServerKind};
use crate::trial::{Clients, Trial};

/// The user of the attacking devices.
const ATTACKER: &str = "attacker";

/// The number of notifications in the attacker's inbox: the most that Belfry replays (`socket.catch_up_limit`).
const NOTIFICATIONS: usize = 1_000;

/// The size of each notification in bytes, most of them in `data`.
const SIZE: usize = 15_000;

/// To pass, the server's memory must grow by less than this number of MiB over that without clients.
const MAX_MEMORY: f64 = 128.0;

/// To pass, the p99 of posting notifications must be below this multiple of the p99 before the attack.
const MAX_DELAY: f64 = 2.0;

#[derive(Debug, Serialize)]
struct Sample {
    run: u32,
    server: String,
    attack: String,
    /// Resident memory before the first connection, in bytes.
    empty_rss: u64,
    /// The peak of resident memory since the start of the attack.
    peak_rss: u64,
    /// Resident memory 5 s after the end of the attack.
    after_rss: u64,
    before_p50_ms: f64,
    before_p99_ms: f64,
    during_p50_ms: f64,
    during_p99_ms: f64,
    /// Failed requests of the service during the attack.
    failed_posts: u64,
    /// Messages that the attackers sent, or replays that they requested.
    requests: u64,
    /// Connections that the attackers saw closed or rejected.
    ended: u64,
    /// Devices that the server disconnected, by its metrics; NaN if it did not respond.
    disconnected: f64,
    /// Log lines of the server that name the attacker or a limit.
    log_lines: u64,
}

impl Sample {
    /// The peak in MiB above the server without clients.
    fn peak(&self) -> f64 {
        mib(self.peak_rss) - mib(self.empty_rss)
    }

    /// The memory after the attack, in MiB above the server without clients.
    fn after(&self) -> f64 {
        mib(self.after_rss) - mib(self.empty_rss)
    }

    fn ratio(&self) -> f64 {
        self.during_p99_ms / self.before_p99_ms
    }
}

pub(super) async fn measure(
    options: &Options,
    rig: &Rig,
    attacks: &[Attack],
    report: &mut Report,
) -> anyhow::Result<()> {
    // Peers have no inboxes.
    let servers = options.servers.iter().copied().filter(|kind| kind.is_belfry());
    let servers: Vec<ServerKind> = servers.collect();
    let groups = measure_each(options, &servers, attacks, report, async |run, kind, attack| {
        measure_once(options, rig, run, kind, attack).await
    })
    .await?;
    report.table(table(options, &groups));
    Ok(())
}

async fn measure_once(
    options: &Options,
    rig: &Rig,
    run: u32,
    kind: ServerKind,
    attack: Attack,
) -> anyhow::Result<Sample> {
    const WARM_UP: Duration = Duration::from_secs(3);
    const RECOVERY: Duration = Duration::from_secs(5);

    let database = rig.fresh_database().await;
    let clients = Clients { limits: Limits::Default, ..Clients::each_alone(0) };
    let mut trial = Trial::open(rig, kind, Mode::Store(database.url()), clients).await?;
    let (server, process) = (trial.server.address, trial.server.process());
    let target = prepare(rig, &trial.server).await.context("the attacker's inbox")?;
    let bystander = Bystander::start(server, &writer(rig))?;
    sleep(WARM_UP).await;

    let before = bystander.begin_window();
    sleep(options.duration).await;
    process.reset_peak_rss();
    let during = bystander.begin_window();
    let attackers = attacks::start(attack, target)?;
    watch(process, options.duration).await;
    // Ends the window `during`, so that later requests are not counted in it.
    bystander.begin_window();
    // This is read before the attackers stop, because the server would also count devices that closed the
    // connection.
    let (disconnected, log_lines) = traces(&trial.server).await;
    let (requests, ended) = attackers.stop();
    sleep(RECOVERY).await;

    trial.server.must_run()?;
    // Work that is still queued after the attack may need more memory than the attack itself.
    let (peak_rss, after_rss) = (process.peak_rss(), process.rss());
    let empty_rss = trial.connect_cost.empty_rss;
    drop(bystander);
    trial.close().await;
    let (before, failed_posts, during) = (before.latency(), during.failed(), during.latency());
    Ok(Sample {
        run,
        server: kind.to_string(),
        attack: attack.to_string(),
        empty_rss,
        peak_rss,
        after_rss,
        before_p50_ms: ms_at(&before, 50.0),
        before_p99_ms: ms_at(&before, 99.0),
        during_p50_ms: ms_at(&during, 50.0),
        during_p99_ms: ms_at(&during, 99.0),
        failed_posts,
        requests,
        ended,
        disconnected,
        log_lines,
    })
}

/// Waits for `time`, or until the process uses so much memory that the machine may run out of it.
async fn watch(process: Process, time: Duration) {
    const TOO_MUCH: u64 = 4 << 30;

    let end = Instant::now() + time;
    while Instant::now() < end && process.peak_rss() < TOO_MUCH {
        sleep(Duration::from_millis(100)).await;
    }
}

/// Fills the attacker's inbox.
async fn prepare(rig: &Rig, server: &Server) -> anyhow::Result<Target> {
    /// The number of notifications that fit into one request with default limits.
    const BATCH: usize = 60;

    let ids: Vec<String> = (0..NOTIFICATIONS).map(|number| format!("n{number}")).collect();
    let mut http = Http::connect(server.address, writer(rig)).await?;
    for ids in ids.chunks(BATCH) {
        let (status, body) = http.request("POST /v1/notifications/batch", &batch(ids)).await?;
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

/// The token of a service that may write notifications.
fn writer(rig: &Rig) -> String {
    rig.key.token("shop").scope("notifications:write").sign()
}

/// The body of a request that creates notifications with these ids.
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

/// The number of devices that Belfry disconnected, and the number of its log lines about the attack.
async fn traces(server: &Server) -> (f64, u64) {
    let Some(belfry) = server.belfry() else { return (f64::NAN, 0) };
    let metrics = timeout(Duration::from_secs(5), metrics(belfry.admin_url())).await;
    let disconnected = match metrics {
        Ok(Ok(metrics)) => float(sum(&metrics, "belfry_devices_closed_total")),
        _ => f64::NAN,
    };
    let lines = belfry.log().lines().filter(|line| names_attacker(line)).count();
    (disconnected, u64::try_from(lines).unwrap_or(u64::MAX))
}

async fn metrics(admin_url: &str) -> anyhow::Result<String> {
    let address = admin_url.trim_start_matches("http://").parse()?;
    let mut http = Http::connect(address, String::new()).await?;
    let (_, body) = http.request("GET /metrics", "").await?;
    Ok(String::from_utf8_lossy(body).into_owned())
}

/// The sum of a counter over all its labels, in the Prometheus text format.
fn sum(metrics: &str, counter: &str) -> u64 {
    let values = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix(counter)?;
        // The line of a counter with a longer name may have the same prefix.
        let is_whole_name = rest.starts_with(['{', ' ']);
        is_whole_name.then(|| rest.rsplit(' ').next()?.parse::<u64>().ok())?
    });
    values.sum()
}

/// True if a line of the log names the attacker, or reports an exceeded limit.
fn names_attacker(line: &str) -> bool {
    let Ok(line) = serde_json::from_str::<Value>(line) else { return false };
    // Depending on the log format, the fields of an event are nested.
    let fields = line.get("fields").unwrap_or(&line);
    fields["user"] == ATTACKER || fields["message"] == "limit exceeded"
}

fn table(options: &Options, groups: &[Group<Sample>]) -> Table {
    let note = format!(
        "One user's devices, with {NOTIFICATIONS} notifications of {SIZE} bytes in the inbox, while a service posts up \
         to 100 notifications a second to others; {:?} before and during each attack, medians of {} runs. MiB are \
         above the server without clients; peak is the highest of the runs, after is 5 s after the attack. Ended: \
         connections that attackers saw closed or rejected. Disconnected: devices that the server counted as \
         disconnected. Passed: peak below {MAX_MEMORY} MiB, and median ratio of p99 below {MAX_DELAY}.",
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
    for Group { server, attack, samples } in groups {
        let median_of = medians(samples.iter());
        let highest = samples.iter().map(Sample::peak).fold(f64::NAN, f64::max);
        let passed = passes(highest, median(samples.iter().map(Sample::ratio)));
        table.row([
            server.to_string(),
            attack.to_string(),
            if passed { "yes" } else { "NO" }.to_owned(),
            show(highest),
            median_of(Sample::after),
            median_of(|run| run.before_p50_ms),
            median_of(|run| run.during_p50_ms),
            median_of(|run| run.before_p99_ms),
            median_of(|run| run.during_p99_ms),
            median_of(Sample::ratio),
            median_of(|run| float(run.failed_posts)),
            median_of(|run| float(run.requests)),
            median_of(|run| float(run.ended)),
            median_of(|run| run.disconnected),
            median_of(|run| float(run.log_lines)),
        ]);
    }
    table
}

/// True if the server has passed. With NaN, which means that no request was answered, it has not.
fn passes(peak_mib: f64, ratio: f64) -> bool {
    peak_mib < MAX_MEMORY && ratio < MAX_DELAY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batch_fits_into_a_request() {
        let ids: Vec<String> = (0..60).map(|number| format!("n{number}")).collect();
        let body = batch(&ids);
        assert!((60 * (SIZE - 200)..1 << 20).contains(&body.len()), "{}", body.len());
        let one = notification("n999").to_string().len();
        assert!((SIZE - 100..=SIZE).contains(&one), "{one}");
    }

    #[test]
    fn counter_is_summed_over_its_labels() {
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
            (r#"{"level":"WARN","message":"limit exceeded","setting":"socket.queue_bytes"}"#, true),
            (r#"{"level":"WARN","message":"too slow","user":"u1"}"#, false),
            ("listening on http://127.0.0.1:8080", false),
        ] {
            assert_eq!(names_attacker(line), counts, "{line}");
        }
    }

    #[test]
    fn nan_does_not_pass() {
        assert!(passes(127.9, 1.9));
        for (peak, ratio) in [(128.0, 1.0), (1.0, 2.0), (f64::NAN, 1.0), (1.0, f64::NAN)] {
            assert!(!passes(peak, ratio));
        }
    }
}
