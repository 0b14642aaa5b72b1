//! Belfry in a container with 128 MiB of memory and no swap. Linux kills a process that needs more.

use belfry_tests::amqp::Amqp;
use belfry_tests::clients::run_script;
use belfry_tests::http::Http;
use belfry_tests::tokens::Key;
use belfry_tests::wait::{PATIENCE, until_within};
use lapin::BasicProperties;
use serde_json::{Value, json};

use super::project::Project;
use crate::setup::SECRET;

const INGEST: &str = "belfry.ingest";
const DEAD: &str = "belfry.ingest.dead";

struct LimitedProject(Project);

impl LimitedProject {
    fn start() -> Self {
        let project = Project::of(&["compose.yaml", "tests/e2e/compose/memory_limit.yaml"]);
        project.succeeds(&["up", "--build", "--wait"]);
        Self(project)
    }

    /// Stops Belfry, runs `meanwhile`, and starts Belfry again. The peak memory of the new process is then
    /// the peak of the next scenario.
    async fn restart_around<F: Future>(&self, meanwhile: F) -> F::Output {
        self.0.succeeds(&["stop", "belfry"]);
        let output = meanwhile.await;
        self.0.succeeds(&["up", "--wait", "belfry"]);
        output
    }

    /// Asserts that the process has not ended, and prints the peak of its resident memory.
    fn assert_survived(&self, scenario: &str) {
        assert_eq!(self.0.restarts("belfry"), "0", "{scenario}");
        let status = self.0.succeeds(&["exec", "-T", "belfry", "cat", "/proc/1/status"]);
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|peak| peak.trim().strip_suffix(" kB")).expect("a peak in kB");
        println!("{scenario}: {} MiB at most", peak.parse::<u64>().expect("a number") / 1024);
    }

    async fn unread_count(&self, user: &str) -> Value {
        let http = Http::new(self.0.node("1")).bearer(Key::hs256(SECRET).token(user).sign());
        http.get("/v1/notifications/unread-count").await.json()["count"].clone()
    }

    /// Connects many devices at once, with `tests/clients/fleet.mjs`.
    async fn fleet(&self, mut config: Value) -> Value {
        config["url"] = self.0.node("1").into();
        config["secret"] = SECRET.into();
        run_script("fleet.mjs", &config).await.remove(0)
    }
}

async fn send_notification(amqp: &Amqp, data: Value) {
    let message = json!({ "pattern": "notification.create", "data": data }).to_string();
    amqp.publish("", INGEST, message, BasicProperties::default()).await;
}

/// Waits longer than in other tests, because the scenarios move hundreds of megabytes.
async fn until_done(what: &str, mut ask: impl AsyncFnMut() -> bool) {
    until_within(PATIENCE * 10, what, async || ask().await.then_some(())).await;
}

#[tokio::test]
#[ignore = "builds the image, which takes ten minutes from nothing; `tests/run compose` runs it"]
async fn node_with_128_mib_survives_and_loses_nothing() {
    let limited = LimitedProject::start();
    let amqp = Amqp::connect(&limited.0.broker()).await;

    let large = 5_000;
    limited
        .restart_around(async {
            let padding = "x".repeat(100_000);
            for n in 0..large {
                let id = format!("n{n}");
                let data = json!({ "userId": "ada", "id": id, "title": "Hi", "x": padding });
                send_notification(&amqp, data).await;
            }
        })
        .await;
    until_done("all are stored", async || limited.unread_count("ada").await == large).await;
    limited.assert_survived("5,000 messages of 100 kB");

    let largest = 60;
    limited
        .restart_around(async {
            let text = "x".repeat(10_000_000);
            for n in 0..largest {
                if n % 2 == 0 {
                    let data = json!({ "userId": "ada", "title": "Hi", "message": text });
                    send_notification(&amqp, data).await;
                } else {
                    amqp.publish("", INGEST, &text, BasicProperties::default()).await;
                }
            }
        })
        .await;
    until_done("all are dead letters", async || amqp.count(DEAD).await == Some(largest)).await;
    limited.assert_survived("60 messages of 10 MB");

    limited.restart_around(async {}).await;
    let polling = json!({
        "prefix": "poll", "users": 1_000, "devicesPerUser": 1, "transport": "polling", "expected": 1,
    });
    let outcome = limited.fleet(polling).await;
    assert_eq!(outcome["complete"], 1_000, "{outcome}");
    limited.assert_survived("1,000 polling devices");

    let (users, notifications) = (20, 1_000);
    let padding = "x".repeat(16_000);
    for user in (0..users).map(|user| format!("replay-{user}")) {
        for n in 0..notifications {
            let id = format!("{user}-{n}");
            let data = json!({ "userId": user, "id": id, "title": "Hi", "data": { "x": padding } });
            send_notification(&amqp, data).await;
        }
        let count = async || limited.unread_count(&user).await == notifications;
        until_done("all are stored", count).await;
    }
    limited.assert_survived("1,000 polling devices, then 20,000 messages of 16 kB");
    limited.restart_around(async {}).await;
    let replay = json!({
        "prefix": "replay", "users": users, "devicesPerUser": 10, "transport": "websocket",
        "expected": notifications, "replay": true,
    });
    let outcome = limited.fleet(replay).await;
    assert_eq!(outcome["complete"], 200, "{outcome}");
    limited.assert_survived("replays of 1,000 notifications of 16 kB to 200 devices");
}
