//! Floods of small packets on signed-in sessions.

use std::time::Instant;

use futures_util::future::join_all;
use tokio::time::timeout;

use super::super::polling_client::PollingClient;
use super::raw_flood::{ATTACKER, FINAL, PING, Prelude, RawFlood, frame, text};
use super::scenario::AttackScenario;
use super::upgrades::upgraded;
use super::{PARALLEL, SECOND};

/// The server reads these packets no faster than the rate limit allows, and other clients are not affected.
#[tokio::test]
async fn flood_of_small_packets_is_throttled_and_not_disconnected() {
    let scenario = AttackScenario::start().await;
    let attacker = scenario.target.attacker();
    let to = scenario.address();
    let rows = [
        ("WebSocket pings", frame(FINAL | PING, &[b'x'; 100])),
        ("pongs", text("3")),
        ("pings, which only the server may send", text("2")),
        ("events of a namespace that is not connected", text(r#"42/notifications,["x"]"#)),
        ("acks", text("431[]")),
    ];
    let floods = rows.map(|(name, packet)| {
        let flood = RawFlood {
            prelude: Prelude::SignIn(attacker.token()),
            first: vec![],
            repeated: packet.repeat(100),
            interval: SECOND / 1_000,
        };
        async move {
            // The flood runs until the timeout. It returns earlier only if the server closes the connection.
            if let Ok(received) = timeout(5 * SECOND, flood.run(ATTACKER, to)).await {
                panic!("{name}: {received:.400}");
            }
        }
    });
    scenario.run_during(join_all(floods)).await;
    scenario.assert_nothing_left().await;
}

#[tokio::test]
async fn packets_other_than_events_are_rate_limited_after_an_upgrade() {
    let scenario = AttackScenario::start().await;
    let attacker = scenario.target.attacker();
    let attack = async || {
        let (mut socket, _) = upgraded(&scenario, &attacker.token()).await;
        let start = Instant::now();
        // A thousand pongs.
        for _ in 0..1_000 {
            socket.send("3").await;
        }
        // An event with the ack id 7, and its ack. The server reads the event after the pongs.
        socket.send(r#"427["notification:list"]"#).await;
        while !socket.frame().await.expect("the connection is open").starts_with("437[") {}
        // The server reads a burst of 400 packets, then 200 a second.
        assert!(start.elapsed() >= 2 * SECOND, "{:?}", start.elapsed());
    };
    scenario.run_during(join_all((0..PARALLEL).map(|_| attack()))).await;
    scenario.assert_nothing_left().await;
}

#[tokio::test]
async fn packets_other_than_events_are_rate_limited_over_polling() {
    let scenario = AttackScenario::start().await;
    let attacker = scenario.target.attacker();
    let attack = async || {
        let (client, _) = PollingClient::signed_in(scenario.url(), &attacker.token()).await;
        // The byte 0x1e separates the packets of one request.
        let pongs = ["3"; 300].join("\u{1e}");
        let start = Instant::now();
        for _ in 0..4 {
            assert_eq!(client.send(pongs.clone()).await.status, 200);
        }
        // The server reads a burst of 400 packets, then 200 a second, and delays the responses above this
        // rate.
        assert!(start.elapsed() >= 2 * SECOND, "{:?}", start.elapsed());
    };
    scenario.run_during(join_all((0..PARALLEL).map(|_| attack()))).await;
    scenario.assert_nothing_left().await;
}
