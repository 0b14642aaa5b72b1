//! Whoever takes more than their share is refused, told so, and lets the others be.

use belfry_tests::clients::Device;
use serde_json::Value;

use crate::setup::{Setup, signed_in};

on_both_setups!(
    one_device_too_many_sends_the_oldest_away_for_good,
    where_it_is_set_one_device_too_many_is_not_let_in,
    devices_connect_by_either_transport_where_connections_have_no_limit,
    devices_that_come_too_many_at_a_time_come_back_by_themselves,
    a_device_that_sends_too_much_is_told_and_at_last_sent_away,
    a_caller_that_asks_too_often_is_told_when_to_ask_again,
);

async fn one_device_too_many_sends_the_oldest_away_for_good(setup: Setup) {
    let place = setup.own_with(|belfry| belfry.setting("limits.sessions_per_user", 2)).await;
    let (ada, bob) = (place.user("ada"), place.user("bob"));
    let bobs = signed_in(bob.node()).await;
    let first = signed_in(ada.node().option("reconnectionDelay", 50)).await;
    let second = signed_in(ada.python().transports(["polling"])).await;
    let third = signed_in(ada.node().transports(["polling"])).await;
    is_sent_away(&first).await;
    let fourth = signed_in(ada.node()).await;
    is_sent_away(&second).await;

    place.until_told(&ada, [&third, &fourth], "n1").await;
    place.until_told(&bob, [&bobs], "n2").await;
    for device in [&first, &second] {
        assert_eq!(device.seen().iter().filter(|seen| seen.kind == "connect").count(), 1);
        assert!(device.events("notification:new").is_empty(), "{}", device.story());
    }
    // Whoever wants it there again has to say so.
    first.reconnect();
    first.of_kind("connect").await;
    is_sent_away(&third).await;
}

async fn is_sent_away(device: &Device) {
    assert_eq!(device.expect("exception").await["code"], "too_many_sessions");
    device.disconnected().await;
}

async fn where_it_is_set_one_device_too_many_is_not_let_in(setup: Setup) {
    let configure = |belfry: belfry_tests::process::Builder| {
        belfry.setting("limits.sessions_per_user", 2).setting("limits.over", "newest")
    };
    let place = setup.own_with(configure).await;
    let (ada, bob) = (place.user("ada"), place.user("bob"));
    let [first, second] = ada.two_devices().await;
    for refused in [ada.node().start(), ada.python().transports(["polling"]).start()] {
        assert_eq!(refused.refused().await, "too_many_sessions");
    }
    let bobs = signed_in(bob.node()).await;
    place.until_told(&ada, [&first, &second], "n1").await;
    place.until_told(&bob, [&bobs], "n2").await;

    first.disconnect();
    first.disconnected().await;
    signed_in(ada.node()).await;
}

async fn devices_connect_by_either_transport_where_connections_have_no_limit(setup: Setup) {
    let place = setup.own_with(|belfry| belfry.setting("limits.connections", 0)).await;
    let ada = place.user("ada");
    let polling = signed_in(ada.node().transports(["polling"])).await;
    let websocket = signed_in(ada.node().transports(["websocket"])).await;
    place.until_told(&ada, [&polling, &websocket], "n1").await;
}

async fn devices_that_come_too_many_at_a_time_come_back_by_themselves(setup: Setup) {
    let place = setup.own_with(|belfry| belfry.setting("limits.handshakes_per_address", 1)).await;
    let ada = place.user("ada");
    // One of them gets no further than its first request, and is let in a little later.
    let start = |transport: &str| ada.node().transports([transport]).start();
    let devices = ["websocket", "polling", "websocket", "polling"].map(start);
    for device in &devices {
        device.connected().await;
        device.expect("notification:sync").await;
    }
    place.until_told(&ada, &devices, "n1").await;
    let refused = devices.iter().flat_map(Device::seen).filter(|seen| seen.kind == "connect_error");
    let goes_on: Vec<_> = refused.map(|seen| seen.rest["active"] == Value::Bool(true)).collect();
    assert!(!goes_on.is_empty() && goes_on.iter().all(|goes_on| *goes_on), "{goes_on:?}");
    counted(&place.belfry, "handshakes_per_address").await;
}

/// The metrics tell that this limit was hit.
async fn counted(belfry: &belfry_tests::process::Belfry, limit: &str) {
    let metrics = belfry.admin_http().get("/metrics").await.text;
    assert!(
        metrics.contains(&format!("belfry_limits_hit_total{{limit=\"{limit}\"}}")),
        "{metrics}"
    );
    belfry.log_line(&format!("limits.{limit}")).await;
}

async fn a_device_that_sends_too_much_is_told_and_at_last_sent_away(setup: Setup) {
    let place = setup.own_with(|belfry| belfry.setting("limits.messages_per_second", 1)).await;
    let ada = place.user("ada");
    let (busy, quiet) = (signed_in(ada.node()).await, signed_in(ada.node()).await);
    let ask = || busy.call("notification:unread_count", Value::Null);
    for _ in 0..2 {
        assert_eq!(ask().await["status"], "ok");
    }
    let refused = ask().await;
    assert_eq!(
        (&refused["status"], &refused["code"]),
        (&"error".into(), &"too_many_messages".into())
    );
    busy.emit("notification:unread_count", Value::Null);
    assert_eq!(busy.expect("exception").await["code"], "too_many_messages");
    assert_eq!(quiet.call("notification:unread_count", Value::Null).await["status"], "ok");

    for _ in 0..200 {
        busy.emit("notification:unread_count", Value::Null);
    }
    assert_eq!(busy.disconnected().await, "io server disconnect");
    place.until_told(&ada, [&quiet], "n1").await;
    counted(&place.belfry, "messages_per_second").await;
}

async fn a_caller_that_asks_too_often_is_told_when_to_ask_again(setup: Setup) {
    let place = setup.own_with(|belfry| belfry.setting("limits.requests_per_second", 1)).await;
    let (ada, bob) = (place.user("ada").http(), place.user("bob").http());
    let path = "/v1/notifications/unread-count";
    ada.get(path).await.expect(200);
    ada.get(path).await.expect(200);
    let refused = ada.get(path).await;
    assert_eq!(refused.expect(429)["code"], "too_many_requests");
    assert_eq!(refused.header("retry-after"), Some("1"));
    bob.get(path).await.expect(200);
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    ada.get(path).await.expect(200);
    counted(&place.belfry, "requests_per_second").await;
}
