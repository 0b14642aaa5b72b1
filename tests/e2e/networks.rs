//! Client libraries as applications use them, on networks that lose, cut and refuse, and at bad moments:
//! upgrades that fail, namespaces that are left and entered again, lost responses, outages.
//!
//! The scenarios are in `tests/clients/networks`; here is what they run against.

use belfry_tests::clients::{Device, Seen, run_script};
use belfry_tests::http::send;
use belfry_tests::postgres::{Database, PostgresServer};
use belfry_tests::process::Belfry;
use belfry_tests::rabbit::fresh_prefix;
use belfry_tests::wait::{until, until_true};
use reqwest::Method;
use serde_json::{Value, json};

use crate::setup::{Ground, Place, SECRET, Setup, User, notify};

on_both_setups!(
    messages_at_bad_moments_are_done_and_received_as_a_client_of_version_4_sees_it,
    messages_at_bad_moments_are_done_and_received_as_a_client_of_version_3_sees_it,
    messages_and_reconnects_of_python_socketio_are_as_those_of_others,
);

/// A `belfry` to which all clients come from one address, at once.
async fn place(setup: Setup) -> Place {
    setup
        .own_with(|belfry| {
            belfry
                .setting("limits.handshakes_per_address", 0)
                .setting("limits.handshakes_per_second", 0)
                // 1,000 ids of 128 characters are 131 kB.
                .setting("socket.max_payload", 262_144)
        })
        .await
}

/// Runs the scenarios of a script.
///
/// # Panics
/// When one of them fails, or there is none.
async fn all_succeed(setup: Setup, script: &str, config: Value) {
    let place = place(setup).await;
    let mut config = config;
    config["url"] = place.belfry.url().into();
    config["secret"] = SECRET.into();
    let outcomes = run_script(script, &config).await;
    let failures: Vec<String> =
        outcomes.iter().filter(|outcome| outcome["ok"] != true).map(failure).collect();
    let (failed, all) = (failures.len(), outcomes.len());
    assert!(failed == 0 && all > 0, "{failed} of {all} failed:\n{}", failures.join("\n"));
}

fn failure(outcome: &Value) -> String {
    let text = |key: &str| outcome[key].as_str().unwrap_or_default();
    let (name, client, transport) = (text("name"), text("client"), text("transport"));
    format!("{name} (client {client}, {transport}): {}", text("error"))
}

async fn all_of_group_succeed(setup: Setup, group: &str, client: &str) {
    all_succeed(setup, "networks.mjs", json!({ "group": group, "clients": [client] })).await;
}

async fn messages_at_bad_moments_are_done_and_received_as_a_client_of_version_4_sees_it(
    setup: Setup,
) {
    all_of_group_succeed(setup, "messages", "4").await;
}

async fn messages_at_bad_moments_are_done_and_received_as_a_client_of_version_3_sees_it(
    setup: Setup,
) {
    all_of_group_succeed(setup, "messages", "3").await;
}

async fn messages_and_reconnects_of_python_socketio_are_as_those_of_others(setup: Setup) {
    all_succeed(setup, "networks.py", json!({})).await;
}

#[tokio::test]
async fn sessions_whose_upgrade_fails_stay_on_polling_with_a_client_of_version_4() {
    all_of_group_succeed(Setup::Embedded, "upgrades", "4").await;
}

#[tokio::test]
async fn sessions_whose_upgrade_fails_stay_on_polling_with_a_client_of_version_3() {
    all_of_group_succeed(Setup::Embedded, "upgrades", "3").await;
}

#[tokio::test]
async fn namespaces_of_one_connection_are_independent_with_a_client_of_version_4() {
    all_of_group_succeed(Setup::Embedded, "namespaces", "4").await;
}

#[tokio::test]
async fn namespaces_of_one_connection_are_independent_with_a_client_of_version_3() {
    all_of_group_succeed(Setup::Embedded, "namespaces", "3").await;
}

#[tokio::test]
async fn violations_of_the_websocket_protocol_are_closed_with_a_code() {
    all_of_group_succeed(Setup::Embedded, "frames", "4").await;
}

#[tokio::test]
async fn browser_that_loses_a_response_receives_and_does_everything_once() {
    let config = json!({ "group": "browsers", "atOnce": 1 });
    all_succeed(Setup::Embedded, "networks.mjs", config).await;
}

/// Milliseconds. A client that does not back off tries again after 500 to 1,500.
const LONG_PAUSE: f64 = 2_000.0;

/// Whether the device has once left a long pause between two attempts.
fn has_backed_off(device: &Device) -> bool {
    let seen = device.seen();
    let attempts: Vec<&Seen> = seen.iter().filter(|seen| seen.kind == "connect_error").collect();
    attempts.windows(2).any(|pair| pair[1].at - pair[0].at > LONG_PAUSE)
}

/// What the server answers to requests that open a transport while nobody can be authenticated: one in a
/// second is admitted.
async fn retry_after(belfry: &Belfry, transport: &str) -> Option<u64> {
    let path = format!("/socket.io/?EIO=4&transport={transport}");
    let mut request = belfry.http().request(Method::GET, &path);
    if transport == "websocket" {
        request = request
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    }
    let answer = send(request).await;
    (answer.status == 503).then(|| answer.header("retry-after").unwrap().parse().unwrap())
}

#[tokio::test]
async fn devices_back_off_while_the_database_is_away_at_the_start_and_connect_once_it_is_there() {
    let server = PostgresServer::start_own().await;
    let (database, broker) = tokio::join!(Database::on(server.url()), fresh_prefix());
    let ground = Ground { database: Some(database), broker: Some(broker) };
    server.stop().await;
    let belfry = ground.belfry().start().await;
    let ada = User::new("ada", &belfry);
    let devices = [
        ada.node().start(),
        ada.node().transports(["polling"]).start(),
        ada.node().transports(["polling", "websocket"]).namespace("/notifications").start(),
        Device::node3(belfry.url()).token(&ada.token()).start(),
        Device::node3(belfry.url()).token(&ada.token()).transports(["polling"]).start(),
    ];
    let python = ada.python().start();

    for transport in ["polling", "websocket"] {
        let first = until("a 503", async || retry_after(&belfry, transport).await).await;
        let longer = async || retry_after(&belfry, transport).await.is_some_and(|it| it > first);
        until_true("a longer Retry-After", longer).await;
    }
    for device in &devices {
        until_true("a device backs off", async || has_backed_off(device)).await;
    }

    server.start().await;
    for device in devices.iter().chain([&python]) {
        device.connected().await;
        device.expect("notification:sync").await;
    }
    notify(&belfry, &ada, json!({ "id": "n1", "title": "Back" })).await;
    for device in devices.iter().chain([&python]) {
        assert_eq!(device.expect("notification:new").await["id"], "n1");
    }
    assert_eq!(retry_after(&belfry, "polling").await, None);
}
