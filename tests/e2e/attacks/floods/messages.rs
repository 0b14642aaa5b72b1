//! Floods of small packets on signed-in sessions.

use std::time::Instant;

use futures_util::future::join_all;
use tokio::time::timeout;

use super::super::polling_client::PollingClient;
use super::raw_flood::{ATTACKER, FINAL, PING, Prelude, RawFlood, frame, text};
use super::scenario::AttackScenario;
use super::upgrades::upgraded;
use super::{PARALLEL, SECOND};

/// Such a flood is allowed: the server processes it at its rate, and it does not affect other clients.
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
    let floods = rows.map(|(attempt, packet)| {
        let flood = RawFlood {
            prelude: Prelude::SignIn(attacker.token()),
            first: vec![],
            repeated: packet.repeat(100),
            interval: SECOND / 1_000,
        };
        async move {
            // The server does not close the connection; the timeout drops it.
            if let Ok(received) = timeout(5 * SECOND, flood.run(ATTACKER, to)).await {
                panic!("{attempt}: {received:.400}");
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
        let begin = Instant::now();
        for _ in 0..1_000 {
            socket.send("3").await;
        }
        socket.send(r#"427["notification:list"]"#).await;
        while !socket.frame().await.expect("it is open").starts_with("437[") {}
        // A burst of 400, then 200 a second.
        assert!(begin.elapsed() >= 2 * SECOND, "{:?}", begin.elapsed());
    };
    scenario.run_during(join_all((0..PARALLEL).map(|_| attack()))).await;
    scenario.assert_nothing_left().await;
}

#[tokio::test]
async fn packets_other_than_events_are_rate_limited_by_polling() {
    let scenario = AttackScenario::start().await;
    let attacker = scenario.target.attacker();
    let attack = async || {
        let (client, _) = PollingClient::signed_in(scenario.url(), &attacker.token()).await;
        let pongs = ["3"; 300].join("\u{1e}");
        let begin = Instant::now();
        for _ in 0..4 {
            assert_eq!(client.send(pongs.clone()).await.status, 200);
        }
        // A burst of 400, then 200 a second. The last request waits until the rate allows it.
        assert!(begin.elapsed() >= 2 * SECOND, "{:?}", begin.elapsed());
    };
    scenario.run_during(join_all((0..PARALLEL).map(|_| attack()))).await;
    scenario.assert_nothing_left().await;
}
