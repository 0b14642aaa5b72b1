//! Real client libraries on bad networks and at bad moments: failed upgrades, namespaces that are left and
//! joined again, lost responses, outages.
//!
//! The scenarios are in `tests/clients/networks`; these tests start the servers for them.

use belfry_tests::clients::{Device, DeviceRecord, run_script};
use belfry_tests::http::send;
use belfry_tests::postgres::{Database, PostgresServer};
use belfry_tests::process::Belfry;
use belfry_tests::rabbit::fresh_prefix;
use belfry_tests::wait::{until, until_true};
use reqwest::Method;
use serde_json::{Value, json};

use crate::setup::{Backends, Deployment, SECRET, Setup, User, notify};

on_both_setups!(
    messages_at_bad_moments_are_processed_and_received_by_client_version_4,
    messages_at_bad_moments_are_processed_and_received_by_client_version_3,
    messages_and_reconnects_work_with_python_socketio,
);

/// A `belfry` without handshake limits: all clients connect from one address at the same time.
async fn unthrottled(setup: Setup) -> Deployment {
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
/// When one of them fails, or none ran.
async fn run_scenarios(setup: Setup, script: &str, config: Value) {
    let deployment = unthrottled(setup).await;
    let mut config = config;
    config["url"] = deployment.belfry.url().into();
    config["secret"] = SECRET.into();
    let results = run_script(script, &config).await;
    let failures: Vec<String> =
        results.iter().filter(|result| result["ok"] != true).map(describe).collect();
    let (failed, all) = (failures.len(), results.len());
    assert!(failed == 0 && all > 0, "{failed} of {all} failed:\n{}", failures.join("\n"));
}

fn describe(failure: &Value) -> String {
    let text = |key: &str| failure[key].as_str().unwrap_or_default();
    let (name, client, transport) = (text("name"), text("client"), text("transport"));
    format!("{name} (client {client}, {transport}): {}", text("error"))
}

async fn run_group(setup: Setup, group: &str, client: &str) {
    run_scenarios(setup, "networks.mjs", json!({ "group": group, "clients": [client] })).await;
}

async fn messages_at_bad_moments_are_processed_and_received_by_client_version_4(setup: Setup) {
    run_group(setup, "messages", "4").await;
}

async fn messages_at_bad_moments_are_processed_and_received_by_client_version_3(setup: Setup) {
    run_group(setup, "messages", "3").await;
}

async fn messages_and_reconnects_work_with_python_socketio(setup: Setup) {
    run_scenarios(setup, "networks.py", json!({})).await;
}

#[tokio::test]
async fn sessions_whose_upgrade_fails_stay_on_polling_with_a_client_of_version_4() {
    run_group(Setup::Embedded, "upgrades", "4").await;
}

#[tokio::test]
async fn sessions_whose_upgrade_fails_stay_on_polling_with_a_client_of_version_3() {
    run_group(Setup::Embedded, "upgrades", "3").await;
}

#[tokio::test]
async fn namespaces_of_one_connection_are_independent_with_a_client_of_version_4() {
    run_group(Setup::Embedded, "namespaces", "4").await;
}

#[tokio::test]
async fn namespaces_of_one_connection_are_independent_with_a_client_of_version_3() {
    run_group(Setup::Embedded, "namespaces", "3").await;
}

#[tokio::test]
async fn connection_that_violates_the_websocket_protocol_is_closed_with_a_code() {
    run_group(Setup::Embedded, "frames", "4").await;
}

#[tokio::test]
async fn browser_that_loses_a_response_receives_and_does_everything_once() {
    let config = json!({ "group": "browsers", "atOnce": 1 });
    run_scenarios(Setup::Embedded, "networks.mjs", config).await;
}

/// A pause that shows a backoff, in milliseconds. A client without a backoff retries after 500 to 1,500 ms.
const LONG_PAUSE: f64 = 2_000.0;

/// Whether the device has made a long pause between two attempts.
fn has_backed_off(device: &Device) -> bool {
    let records = device.records();
    let attempts: Vec<&DeviceRecord> =
        records.iter().filter(|record| record.kind == "connect_error").collect();
    attempts.windows(2).any(|pair| pair[1].at - pair[0].at > LONG_PAUSE)
}

/// Requests a transport while tokens cannot be verified, and returns the response's `Retry-After` in seconds.
/// `None` if the request is admitted: Belfry admits one a second.
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
async fn devices_back_off_during_a_database_outage_and_connect_after_it() {
    let server = PostgresServer::start_own().await;
    let (database, broker) = tokio::join!(Database::on(server.url()), fresh_prefix());
    let backends = Backends { database: Some(database), broker: Some(broker) };
    server.stop().await;
    let belfry = backends.belfry().start().await;
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
