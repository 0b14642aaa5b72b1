//! The head of a report: command, date, machine and versions.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::figures::{float, show};
use crate::own_thread::autogroup_enabled;
use crate::publisher::Publisher;
use crate::rig::Rig;
use crate::servers::{ServerKind, tests};

/// Names and values for the head of a report.
pub(crate) type Facts = Vec<(String, String)>;

/// The command, the date, the machine and the versions of the servers.
pub(crate) async fn facts(rig: &Rig, servers: &[ServerKind]) -> Facts {
    let mut facts = vec![
        ("command".to_owned(), command_line()),
        ("date".to_owned(), date()),
        ("machine".to_owned(), machine()),
        ("belfry".to_owned(), belfry(rig)),
        ("RabbitMQ".to_owned(), rabbitmq(rig).await),
    ];
    if let Some(version) = rig.postgres_version().await {
        facts.push(("PostgreSQL".to_owned(), version));
    }
    let scripts = [(ServerKind::Node, "node"), (ServerKind::Nest, "nest")];
    let scripts: Vec<_> = scripts.iter().filter(|(kind, _)| servers.contains(kind)).collect();
    if !scripts.is_empty() {
        facts.push(("Node.js".to_owned(), output_of(Command::new("node").arg("--version"))));
    }
    for (_, peer) in scripts {
        facts.push((format!("{peer}'s packages"), packages(peer)));
    }
    facts
}

fn command_line() -> String {
    let arguments = std::env::args()
        .skip(1)
        .map(|argument| if argument.contains(' ') { format!("'{argument}'") } else { argument });
    // Leaves out the credentials of URLs.
    let shown =
        arguments.map(|argument| match (argument.split_once("://"), argument.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, host))) => format!("{scheme}://…@{host}"),
            _ => argument,
        });
    format!("belfry-load {}", shown.collect::<Vec<_>>().join(" "))
}

#[expect(clippy::disallowed_methods, reason = "a report contains its date")]
fn date() -> String {
    chrono::Utc::now().format("%Y-%m-%d %H:%M UTC").to_string()
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib =
        text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next());
    let gib = float(kib.and_then(|kib| kib.parse().ok()).unwrap_or(0)) / f64::from(1 << 20);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let memory = show(gib);
    let groups = match autogroup_enabled() {
        Some(true) => ", cores divided among sessions (autogroup)",
        Some(false) => ", cores divided among threads (no autogroup)",
        None => "",
    };
    format!(
        "{cores} cores, {memory} GiB, Linux {}{groups}, everything on this one machine",
        kernel.trim()
    )
}

fn belfry(rig: &Rig) -> String {
    let version = output_of(Command::new(&rig.belfry).arg("--version"));
    if rig.options.belfry.is_some() {
        return version;
    }
    let describe = ["describe", "--always", "--dirty", "--tags"];
    format!("{version}, {}", output_of(Command::new("git").args(describe).current_dir(tests())))
}

async fn rabbitmq(rig: &Rig) -> String {
    let url = rig.amqp_url.clone();
    let connected = tokio::task::spawn_blocking(move || Publisher::connect(&url, "", false)).await;
    connected.ok().and_then(Result::ok).map(|it| it.broker_version).unwrap_or_default()
}

/// The installed versions of the dependencies in a peer's `package.json`.
fn packages(peer: &str) -> String {
    let folder = tests().join("load/peers").join(peer);
    let read = |path: &Path| -> Option<serde_json::Value> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    };
    let manifest = read(&folder.join("package.json")).unwrap_or_default();
    let names = manifest["dependencies"].as_object().into_iter().flatten();
    let versions = names.filter_map(|(name, _)| {
        let installed = read(&folder.join("node_modules").join(name).join("package.json"))?;
        Some(format!("{name} {}", installed["version"].as_str()?))
    });
    versions.collect::<Vec<_>>().join(", ")
}

fn output_of(command: &mut Command) -> String {
    let output = command.output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).trim().to_owned()
}
