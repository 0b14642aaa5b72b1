//! The same clients and services run against a NestJS gateway with its notification service, and against
//! Belfry. Belfry replaces either both, or the gateway alone.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use belfry_tests::clients::{RunningScript, run_script};
use belfry_tests::process::Belfry;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::setup::{Backends, SECRET, Setup, ready};

/// The parts that Belfry replaces.
#[derive(Debug, Clone, Copy)]
enum Replaced {
    /// The gateway and the notification service: mode `store`.
    Both,
    /// The gateway alone: mode `forward`.
    Gateway,
}

/// The differences between NestJS and Belfry, each with its row in the table "What differs" of the page
/// `bootstrap/docs/from-nestjs.md`.
struct Differences {
    /// The steps in which a device observes something different.
    steps: &'static [(&'static str, &'static str)],
    /// Events and fields that only Belfry sends.
    additions: &'static [(&'static str, &'static str)],
}

const STORE_DIFFERENCES: Differences = Differences {
    steps: &[
        ("a client marks all as read", "event after a mark as read"),
        ("a client marks an unknown notification as read", "unknown notification"),
        ("a client sends an unknown event", "unknown message"),
        ("a token expires while its client is connected", "token"),
    ],
    additions: &[
        ("notification:sync", "connect"),
        ("link", "notification"),
        ("priority", "notification"),
        ("expiresAt", "notification"),
        ("revision", "notification"),
        ("ids", "event after a mark as read"),
        ("all", "event after a mark as read"),
    ],
};

const FORWARD_DIFFERENCES: Differences = Differences {
    steps: &[
        ("a browser connects", "connect in mode `forward`"),
        ("an app connects with a header", "connect in mode `forward`"),
        ("another user connects", "connect in mode `forward`"),
        ("a notification is created while the app is offline", "connect in mode `forward`"),
        ("a client gets the unread count", "lists and counts in mode `forward`"),
        ("a client gets the list", "lists and counts in mode `forward`"),
        ("a client marks an unknown notification as read", "unknown notification"),
        ("a client sends an unknown event", "unknown message"),
        ("a token expires while its client is connected", "token"),
    ],
    additions: &[
        ("notification:sync", "connect"),
        ("userId", "event after a mark as read"),
        ("unreadCount", "event after a mark as read"),
    ],
};

impl Replaced {
    fn differences(self) -> Differences {
        match self {
            Self::Both => STORE_DIFFERENCES,
            Self::Gateway => FORWARD_DIFFERENCES,
        }
    }
}

/// The names of events and messages that the clients of a gateway use.
struct Preset {
    /// Belfry's setting `socket.compat` for these names.
    compat: &'static str,
    names: Value,
}

fn presets() -> [Preset; 3] {
    [
        Preset {
            compat: "nestjs-default",
            names: json!({
                "new": "notification", "wrapper": "",
                "count": "unread_count", "countField": "count", "read": "notification:read",
                "markRead": "markAsRead", "markAllRead": "markAllAsRead",
                "getCount": "getUnreadCount", "list": "getNotifications",
            }),
        },
        Preset {
            compat: "camel-case, wrap-data, count-unread-count",
            names: json!({
                "new": "newNotification", "wrapper": "data",
                "count": "unreadCount", "countField": "unreadCount", "read": "notificationRead",
                "markRead": "markAsRead", "markAllRead": "markAllAsRead",
                "getCount": "getUnreadCount", "list": "getNotifications",
            }),
        },
        Preset {
            compat: "snake-case, wrap-notification, count-number",
            names: json!({
                "new": "new_notification", "wrapper": "notification",
                "count": "unread_count", "countField": "", "read": "notification_read",
                "markRead": "mark_as_read", "markAllRead": "mark_all_as_read",
                "getCount": "get_unread_count", "list": "get_notifications",
            }),
        },
    ]
}

/// A step of the scenario.
struct Step {
    name: String,
    /// One observation of a device each: the device's name, the event, and the arguments.
    lines: Vec<Value>,
}

async fn run_scenario(config: Value) -> Vec<Step> {
    let steps = run_script("gateway-scenario.mjs", &config).await.into_iter().map(|step| {
        let name = step["step"].as_str().unwrap().to_owned();
        let mut lines = step["lines"].as_array().unwrap().clone();
        lines.iter_mut().for_each(hide_times);
        put_acknowledgements_first(&mut lines);
        Step { name, lines }
    });
    steps.collect()
}

/// Sorts the lines of each device, because an event and an acknowledgement may arrive in either order.
fn put_acknowledgements_first(lines: &mut [Value]) {
    for device_lines in lines.chunk_by_mut(|line, next| line[0] == next[0]) {
        device_lines.sort_by_key(|line| line[1] != "ack");
    }
}

fn hide_times(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(hide_times),
        Value::Object(fields) => {
            for (name, value) in fields {
                if name.ends_with("At") && value.is_string() {
                    *value = "<time>".into();
                }
                hide_times(value);
            }
        }
        _ => {}
    }
}

/// Removes the fields of `belfry` that `nest` lacks, and adds their names to `added`.
fn remove_additions(belfry: &mut Value, nest: &Value, added: &mut BTreeSet<String>) {
    match (belfry, nest) {
        (Value::Array(belfry), Value::Array(nest)) => {
            for (belfry, nest) in belfry.iter_mut().zip(nest) {
                remove_additions(belfry, nest, added);
            }
        }
        (Value::Object(belfry), Value::Object(nest)) => {
            belfry.retain(|name, _| {
                let is_known = nest.contains_key(name);
                if !is_known {
                    added.insert(name.clone());
                }
                is_known
            });
            for (name, value) in belfry {
                remove_additions(value, &nest[name], added);
            }
        }
        _ => {}
    }
}

fn side_by_side(nest: &Step, belfry: &Step) -> String {
    let mut text = format!("== {}\n", nest.name);
    for index in 0..nest.lines.len().max(belfry.lines.len()) {
        let line = |step: &Step| step.lines.get(index).map(ToString::to_string).unwrap_or_default();
        let (nest, belfry) = (line(nest), line(belfry));
        let mark = if nest == belfry { ' ' } else { '!' };
        let _ = writeln!(text, "{mark} {nest:<100} | {belfry}");
    }
    text
}

/// A NestJS gateway with its service, and Belfry. In mode `forward`, Belfry has such a service, too.
struct Servers {
    gateway: RunningScript,
    /// The queue of the service behind the gateway.
    gateway_queue: String,
    belfry: Belfry,
    /// The queue of the service behind Belfry, or without one, of Belfry itself.
    belfry_queue: String,
    _service: Option<RunningScript>,
    backends: Backends,
    /// Whether Belfry sends an unread count at connect.
    belfry_sends_count: bool,
}

impl Servers {
    async fn start(preset: &Preset, replaced: Replaced) -> Self {
        let Preset { compat, names } = preset;
        let list = format!("{} as items", names["list"].as_str().unwrap());
        let backends = Setup::Servers.backends().await;
        let broker = backends.broker();
        let (ingest, devices) = (broker.ingest_queue(), broker.devices_exchange());
        let belfry = backends
            .belfry()
            .setting("socket.compat", compat)
            .setting("socket.refusal", "disconnect")
            .setting("socket.messages.list", list);
        let belfry = match replaced {
            Replaced::Both => belfry,
            Replaced::Gateway => belfry
                .setting("amqp.ingest.mode", "forward")
                .setting("amqp.ingest.patterns.create", "created")
                .setting("amqp.ingest.patterns.mark_read", "read")
                .setting("amqp.devices.exchange", &devices),
        };
        let belfry = ready(belfry.start().await).await;

        let (gateway_queue, service_queue) = (broker.name("pair"), broker.name("service"));
        let push_queue = format!("{gateway_queue}.push");
        for queue in [&gateway_queue, &push_queue, &service_queue] {
            broker.will_delete_queue(queue);
        }
        broker.will_delete_queue(format!("{service_queue}.devices"));
        let gateway = json!({
            "url": broker.url(), "queue": gateway_queue, "pushQueue": push_queue,
            "secret": SECRET, "names": names,
        });
        let gateway = RunningScript::start("nest/11/pair.cjs", &gateway);
        let service = json!({
            "url": broker.url(), "queue": service_queue, "pushQueue": ingest,
            "devicesExchange": devices, "names": names,
        });
        let (service, belfry_queue, belfry_sends_count) = match replaced {
            Replaced::Both => (None, ingest, true),
            Replaced::Gateway => {
                let service = RunningScript::start("nest/11/pair.cjs", &service);
                service.expect("listening", |_| true).await;
                (Some(service), service_queue, false)
            }
        };
        Self {
            gateway,
            gateway_queue,
            belfry,
            belfry_queue,
            _service: service,
            backends,
            belfry_sends_count,
        }
    }

    /// Runs the scenario against the gateway and against Belfry.
    async fn run(&self, names: &Value) -> (Vec<Step>, Vec<Step>) {
        let listening = self.gateway.expect("listening", |_| true).await;
        let amqp = self.backends.broker().url();
        let scenario = |url: &str, queue: &str, count_at_connect: bool| {
            run_scenario(json!({
                "url": url, "amqp": amqp, "queue": queue, "secret": SECRET, "names": names,
                "countAtConnect": count_at_connect,
            }))
        };
        tokio::join!(
            scenario(listening["url"].as_str().unwrap(), &self.gateway_queue, true),
            scenario(self.belfry.url(), &self.belfry_queue, self.belfry_sends_count),
        )
    }
}

/// Runs the scenario. Returns the steps that differ, and the events and fields that only Belfry sends.
async fn compare(preset: &Preset, replaced: Replaced) -> (BTreeSet<String>, BTreeSet<String>) {
    let (nest, mut belfry) = Servers::start(preset, replaced).await.run(&preset.names).await;
    println!("#### {}, {replaced:?}: NestJS | Belfry", preset.compat);
    assert_eq!(nest.len(), belfry.len());
    let (mut different, mut added) = (BTreeSet::new(), BTreeSet::new());
    for (nest, belfry) in nest.iter().zip(&mut belfry) {
        belfry.lines.retain(|line| {
            let is_added = line[1] == "notification:sync";
            if is_added {
                added.insert("notification:sync".to_owned());
            }
            !is_added
        });
        for belfry in &mut belfry.lines {
            let is_same_event = |nest: &&Value| nest[0] == belfry[0] && nest[1] == belfry[1];
            if let Some(nest) = nest.lines.iter().find(is_same_event) {
                remove_additions(belfry, nest, &mut added);
            }
        }
        println!("{}", side_by_side(nest, belfry));
        if nest.lines != belfry.lines {
            different.insert(nest.name.clone());
        }
    }
    println!("Belfry adds {added:?}");
    (different, added)
}

async fn assert_only_listed_differences(presets: &[Preset], replaced: Replaced) {
    let Differences { steps, additions } = replaced.differences();
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bootstrap/docs/from-nestjs.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, table) = page.split_once("## What differs").unwrap();
    for (_, row) in steps.iter().chain(additions) {
        assert!(table.contains(&format!("| {row} |")), "the page has no row {row:?}");
    }
    let names = |differences: &[(&str, &str)]| -> BTreeSet<String> {
        differences.iter().map(|(name, _)| (*name).to_owned()).collect()
    };
    for (different, added) in join_all(presets.iter().map(|it| compare(it, replaced))).await {
        assert_eq!(different, names(steps));
        assert_eq!(added, names(additions));
    }
}

#[tokio::test]
async fn clients_and_services_of_a_nestjs_gateway_see_the_same_from_belfry() {
    assert_only_listed_differences(&presets(), Replaced::Both).await;
}

#[tokio::test]
async fn clients_and_the_service_of_a_nestjs_gateway_see_the_same_from_belfry_in_forward_mode() {
    assert_only_listed_differences(&presets(), Replaced::Gateway).await;
}
