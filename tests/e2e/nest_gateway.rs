//! The same clients and the same service run against a NestJS gateway with its notification service, and against
//! Belfry in the place of both.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use belfry_tests::clients::{RunningScript, run_script};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::setup::{SECRET, Setup};

/// The steps in which Belfry differs, each with the row of the page's table "What differs".
const DIFFERENT_STEPS: [(&str, &str); 6] = [
    ("a client marks one as read", "event after a mark as read"),
    ("a service marks one as read", "event after a mark as read"),
    ("a client marks all as read", "event after a mark as read"),
    ("a client marks an unknown notification as read", "unknown notification"),
    ("a client sends an unknown event", "unknown message"),
    ("a token expires while its client is connected", "token"),
];

/// What Belfry sends in addition, each with the row of the page's table "What differs".
const ADDITIONS: [(&str, &str); 7] = [
    ("notification:sync", "connect"),
    ("link", "notification"),
    ("priority", "notification"),
    ("expiresAt", "notification"),
    ("revision", "notification"),
    ("ids", "event after a mark as read"),
    ("all", "event after a mark as read"),
];

/// How the clients of a gateway name events and messages, and the setting of Belfry for them.
struct Preset {
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

/// A line is what a device observed: its name, the event, and the arguments.
struct Step {
    name: String,
    lines: Vec<Value>,
}

async fn run_scenario(url: &str, amqp: &str, queue: &str, names: &Value) -> Vec<Step> {
    let config =
        json!({ "url": url, "amqp": amqp, "queue": queue, "secret": SECRET, "names": names });
    let steps = run_script("gateway-scenario.mjs", &config).await.into_iter().map(|step| {
        let name = step["step"].as_str().unwrap().to_owned();
        let mut lines = step["lines"].as_array().unwrap().clone();
        lines.iter_mut().for_each(hide_times);
        Step { name, lines }
    });
    steps.collect()
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

/// Returns the steps that differ, and what Belfry adds.
async fn compare(preset: &Preset) -> (BTreeSet<String>, BTreeSet<String>) {
    let Preset { compat, names } = preset;
    let list = format!("{} as items", names["list"].as_str().unwrap());
    let deployment = Setup::Servers
        .own_with(|it| {
            it.setting("socket.compat", compat)
                .setting("socket.refusal", "disconnect")
                .setting("socket.messages.list", list)
        })
        .await;
    let broker = deployment.broker();
    let queue = broker.name("pair");
    broker.will_delete_queue(&queue);
    broker.will_delete_queue(format!("{queue}.push"));
    let config = json!({ "url": broker.url(), "queue": queue, "secret": SECRET, "names": names });
    let pair = RunningScript::start("nest/11/pair.cjs", &config);
    let listening = pair.expect("listening", |_| true).await;
    let (gateway, ingest) = (listening["url"].as_str().unwrap(), broker.ingest_queue());
    let (nest, mut belfry) = tokio::join!(
        run_scenario(gateway, broker.url(), &queue, names),
        run_scenario(deployment.belfry.url(), broker.url(), &ingest, names),
    );
    println!("#### {compat}: NestJS | Belfry");
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

#[tokio::test]
async fn clients_and_services_of_a_nestjs_gateway_see_the_same_from_belfry() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bootstrap/docs/from-nestjs.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, listed) = page.split_once("## What differs").unwrap();
    for (_, row) in DIFFERENT_STEPS.into_iter().chain(ADDITIONS) {
        assert!(listed.contains(&format!("| {row} |")), "the page has no row {row:?}");
    }
    let expected = |table: &[(&str, &str)]| -> BTreeSet<String> {
        table.iter().map(|(name, _)| (*name).to_owned()).collect()
    };
    let presets = presets();
    for (different, added) in join_all(presets.iter().map(compare)).await {
        assert_eq!(different, expected(&DIFFERENT_STEPS));
        assert_eq!(added, expected(&ADDITIONS));
    }
}
