//! Upgrades from polling to a WebSocket that are abandoned or repeated.
//!
//! For an upgrade a client opens a WebSocket, sends the probe `2probe`, receives `3probe`, and sends the
//! UPGRADE packet `5`.

use std::pin::pin;

use belfry_tests::raw_socket::RawSocket;
use futures_util::future::join_all;
use tokio::time::timeout;

use super::super::polling_client::PollingClient;
use super::scenario::AttackScenario;
use super::{PARALLEL, SECOND};
use crate::setup::key;

/// A signed-in session that has been upgraded to a WebSocket, and its query string.
pub(super) async fn upgraded(scenario: &AttackScenario, token: &str) -> (RawSocket, String) {
    let (_, sid) = PollingClient::signed_in(scenario.url(), token).await;
    let query = format!("&sid={sid}");
    let mut socket = RawSocket::upgrade(scenario.url(), &query).await.unwrap();
    socket.send("2probe").await;
    assert_eq!(socket.frame().await.as_deref(), Some("3probe"));
    socket.send("5").await;
    (socket, query)
}

struct AbandonedUpgrade {
    attempt: &'static str,
    packets: &'static [&'static str],
    /// Whether the WebSocket stays open until the server closes it.
    stays_open: bool,
}

#[tokio::test]
async fn session_continues_by_polling_after_an_abandoned_upgrade() {
    let scenario = AttackScenario::start().await;
    let attacker = scenario.target.attacker();
    for AbandonedUpgrade { attempt, packets, stays_open } in [
        AbandonedUpgrade {
            attempt: "closed after the opening handshake",
            packets: &[],
            stays_open: false,
        },
        AbandonedUpgrade {
            attempt: "silent after the opening handshake",
            packets: &[],
            stays_open: true,
        },
        AbandonedUpgrade {
            attempt: "closed after the probe",
            packets: &["2probe"],
            stays_open: false,
        },
        AbandonedUpgrade {
            attempt: "silent after the probe",
            packets: &["2probe"],
            stays_open: true,
        },
        AbandonedUpgrade { attempt: "no probe", packets: &["5"], stays_open: true },
        AbandonedUpgrade {
            attempt: "two probes",
            packets: &["2probe", "2probe"],
            stays_open: true,
        },
        AbandonedUpgrade {
            attempt: "an event before the upgrade",
            packets: &["2probe", r#"42["notification:list"]"#],
            stays_open: true,
        },
    ] {
        let attack = async |polls_often: bool| {
            let (client, sid) = PollingClient::signed_in(scenario.url(), &attacker.token()).await;
            let upgrade = async {
                let query = format!("&sid={sid}");
                let mut socket = RawSocket::upgrade(scenario.url(), &query).await.unwrap();
                for packet in packets {
                    socket.send(packet).await;
                }
                if stays_open {
                    while socket.frame().await.is_some() {}
                }
            };
            // The session polls during the upgrade and after it.
            let mut upgrade = pin!(upgrade);
            let interval = if polls_often { SECOND / 10 } else { SECOND };
            let mut id = 10;
            while timeout(interval, &mut upgrade).await.is_err() {
                call_by_polling(&client, id).await;
                id += 1;
            }
            call_by_polling(&client, 9).await;
            // Engine.IO CLOSE.
            client.send("1").await;
        };
        // The output of a test is shown only if it fails.
        println!("{attempt}");
        let all = join_all((0..PARALLEL).map(|number| attack(number % 2 == 0)));
        scenario.run_during(all).await;
    }
    scenario.assert_nothing_left().await;
}

/// Sends an event with this ack id and polls until the ack arrives.
async fn call_by_polling(client: &PollingClient, id: u32) {
    let answer = client.send(format!("42{id}[\"notification:unread_count\"]")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    loop {
        let received = client.poll().await;
        assert_eq!(received.status, 200, "{received:?}");
        // The byte 0x1e separates packets. A ping (2) needs an answer.
        let mut packets = received.text.split('\u{1e}');
        if packets.clone().any(|packet| packet == "2") {
            client.send("3").await;
        }
        if packets.any(|packet| packet.starts_with(&format!("43{id}["))) {
            return;
        }
    }
}

#[tokio::test]
async fn second_websocket_does_not_replace_the_first_one() {
    let scenario = AttackScenario::start().await;
    let attacker = scenario.target.attacker();
    let attack = async || {
        let token = key().token(attacker.id()).expires_in(10 * SECOND).sign();
        let (mut socket, query) = upgraded(&scenario, &token).await;
        let mut second = RawSocket::upgrade(scenario.url(), &query).await.unwrap();
        second.send("2probe").await;
        assert_eq!(second.frame().await, None, "the session already has a WebSocket");
        // The session continues on the first WebSocket, which is closed when the token expires.
        socket.send(r#"427["notification:list"]"#).await;
        let mut received = String::new();
        while let Some(frame) = socket.frame().await {
            received += &frame;
        }
        assert!(received.contains("437[") && received.contains("token_expired"), "{received}");
    };
    scenario.run_during(join_all((0..PARALLEL).map(|_| attack()))).await;
    scenario.assert_nothing_left().await;
}
