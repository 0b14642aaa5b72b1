//! Limits: excess clients and messages are rejected with a code, and others are not affected.

use belfry_tests::clients::Device;
use serde_json::Value;

use crate::setup::{Setup, signed_in};

on_both_setups!(
    excess_device_evicts_the_oldest_which_does_not_reconnect,
    excess_device_is_rejected_if_limits_over_is_newest,
    devices_connect_by_both_transports_without_a_connection_limit,
    excess_handshakes_are_rejected_and_devices_retry,
    excess_messages_are_rejected_and_many_disconnect_the_device,
    excess_requests_are_rejected_with_retry_after,
);

async fn excess_device_evicts_the_oldest_which_does_not_reconnect(setup: Setup) {
    let deployment = setup.own_with(|belfry| belfry.setting("limits.sessions_per_user", 2)).await;
    let (ada, bob) = (deployment.user("ada"), deployment.user("bob"));
    let bobs = signed_in(bob.node()).await;
    let first = signed_in(ada.node().option("reconnectionDelay", 50)).await;
    let second = signed_in(ada.python().transports(["polling"])).await;
    let third = signed_in(ada.node().transports(["polling"])).await;
    expect_eviction(&first).await;
    let fourth = signed_in(ada.node()).await;
    expect_eviction(&second).await;

    deployment.until_delivered(&ada, [&third, &fourth], "n1").await;
    deployment.until_delivered(&bob, [&bobs], "n2").await;
    for device in [&first, &second] {
        assert_eq!(device.records().iter().filter(|record| record.kind == "connect").count(), 1);
        assert!(device.events("notification:new").is_empty(), "{}", device.transcript());
    }
    // An evicted device does not reconnect by itself. An explicit connect works.
    first.reconnect();
    first.of_kind("connect").await;
    expect_eviction(&third).await;
}

async fn expect_eviction(device: &Device) {
    assert_eq!(device.expect("exception").await["code"], "too_many_sessions");
    device.disconnected().await;
}

async fn excess_device_is_rejected_if_limits_over_is_newest(setup: Setup) {
    let configure = |belfry: belfry_tests::process::Builder| {
        belfry.setting("limits.sessions_per_user", 2).setting("limits.over", "newest")
    };
    let deployment = setup.own_with(configure).await;
    let (ada, bob) = (deployment.user("ada"), deployment.user("bob"));
    let [first, second] = ada.two_devices().await;
    for rejected in [ada.node().start(), ada.python().transports(["polling"]).start()] {
        assert_eq!(rejected.refused().await, "too_many_sessions");
    }
    let bobs = signed_in(bob.node()).await;
    deployment.until_delivered(&ada, [&first, &second], "n1").await;
    deployment.until_delivered(&bob, [&bobs], "n2").await;

    first.disconnect();
    first.disconnected().await;
    signed_in(ada.node()).await;
}

async fn devices_connect_by_both_transports_without_a_connection_limit(setup: Setup) {
    let deployment = setup.own_with(|belfry| belfry.setting("limits.connections", 0)).await;
    let ada = deployment.user("ada");
    let polling = signed_in(ada.node().transports(["polling"])).await;
    let websocket = signed_in(ada.node().transports(["websocket"])).await;
    deployment.until_delivered(&ada, [&polling, &websocket], "n1").await;
}

async fn excess_handshakes_are_rejected_and_devices_retry(setup: Setup) {
    let deployment =
        setup.own_with(|belfry| belfry.setting("limits.handshakes_per_address", 1)).await;
    let ada = deployment.user("ada");
    // The burst is two handshakes. At least one device is rejected at its first request and admitted when it
    // retries.
    let start = |transport: &str| ada.node().transports([transport]).start();
    let devices = ["websocket", "polling", "websocket", "polling"].map(start);
    for device in &devices {
        device.connected().await;
        device.expect("notification:sync").await;
    }
    deployment.until_delivered(&ada, &devices, "n1").await;
    let rejections =
        devices.iter().flat_map(Device::records).filter(|record| record.kind == "connect_error");
    let will_retry: Vec<_> =
        rejections.map(|record| record.rest["active"] == Value::Bool(true)).collect();
    let all_will_retry = will_retry.iter().all(|will_retry| *will_retry);
    assert!(!will_retry.is_empty() && all_will_retry, "{will_retry:?}");
    expect_limit_reported(&deployment.belfry, "handshakes_per_address").await;
}

/// Expects that the metrics and the log report that this limit was exceeded.
async fn expect_limit_reported(belfry: &belfry_tests::process::Belfry, limit: &str) {
    let metrics = belfry.admin_http().get("/metrics").await.text;
    assert!(
        metrics.contains(&format!("belfry_limits_hit_total{{limit=\"{limit}\"}}")),
        "{metrics}"
    );
    belfry.log_line(&format!("limits.{limit}")).await;
}

async fn excess_messages_are_rejected_and_many_disconnect_the_device(setup: Setup) {
    let deployment = setup.own_with(|belfry| belfry.setting("limits.messages_per_second", 1)).await;
    let ada = deployment.user("ada");
    let (busy, quiet) = (signed_in(ada.node()).await, signed_in(ada.node()).await);
    let count_unread = || busy.call("notification:unread_count", Value::Null);
    // The burst is two messages.
    for _ in 0..2 {
        assert_eq!(count_unread().await["status"], "ok");
    }
    let rejected = count_unread().await;
    assert_eq!(
        (&rejected["status"], &rejected["code"]),
        (&"error".into(), &"too_many_messages".into())
    );
    busy.emit("notification:unread_count", Value::Null);
    assert_eq!(busy.expect("exception").await["code"], "too_many_messages");
    assert_eq!(quiet.call("notification:unread_count", Value::Null).await["status"], "ok");

    // Far more than ten times the rate.
    for _ in 0..200 {
        busy.emit("notification:unread_count", Value::Null);
    }
    assert_eq!(busy.disconnected().await, "io server disconnect");
    deployment.until_delivered(&ada, [&quiet], "n1").await;
    expect_limit_reported(&deployment.belfry, "messages_per_second").await;
}

async fn excess_requests_are_rejected_with_retry_after(setup: Setup) {
    let deployment = setup.own_with(|belfry| belfry.setting("limits.requests_per_second", 1)).await;
    let (ada, bob) = (deployment.user("ada").http(), deployment.user("bob").http());
    let path = "/v1/notifications/unread-count";
    ada.get(path).await.expect(200);
    ada.get(path).await.expect(200);
    let rejected = ada.get(path).await;
    assert_eq!(rejected.expect(429)["code"], "too_many_requests");
    assert_eq!(rejected.header("retry-after"), Some("1"));
    bob.get(path).await.expect(200);
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    ada.get(path).await.expect(200);
    expect_limit_reported(&deployment.belfry, "requests_per_second").await;
}
