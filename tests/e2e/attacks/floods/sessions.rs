//! Sessions that are not connected to any namespace. The server ends them after `socket.connect_timeout`,
//! which is three seconds here.

use belfry_tests::raw_socket::RawSocket;
use belfry_tests::wait::until_true;
use futures_util::future::join_all;
use serde_json::json;
use tokio::time::sleep;

use super::super::polling_client::PollingClient;
use super::scenario::AttackScenario;
use super::{PARALLEL, SECOND};

async fn until_ended(client: &PollingClient) {
    until_true("the session has ended", async || client.poll().await.status == 400).await;
}

#[tokio::test]
async fn polling_sessions_without_a_sign_in_end_by_themselves() {
    let scenario = AttackScenario::start().await;
    let attack = join_all((0..PARALLEL * 5).map(|number| {
        let url = scenario.url();
        async move {
            let (client, _) = PollingClient::open(url).await;
            // Half of the sessions end during a poll, the others between polls.
            if number % 2 == 0 {
                sleep(4 * SECOND).await;
            }
            until_ended(&client).await;
        }
    }));
    scenario.run_during(attack).await;
    scenario.assert_nothing_left().await;
}

#[tokio::test]
async fn session_ends_after_leaving_all_namespaces() {
    let scenario = AttackScenario::start().await;
    let attacker = scenario.target.attacker();
    let auth = json!({ "token": attacker.token() });
    // `41` is a Socket.IO DISCONNECT.
    let leave = async |number: usize| {
        if number.is_multiple_of(2) {
            let (client, _) = PollingClient::signed_in(scenario.url(), &attacker.token()).await;
            client.send("41").await;
            until_ended(&client).await;
        } else {
            let mut socket = RawSocket::signed_in(scenario.url(), &auth).await;
            socket.send("41").await;
            while socket.frame().await.is_some() {}
        }
    };
    // A session stays if it is connected to another namespace, or connects again in time.
    let stay = async || {
        let mut socket = RawSocket::signed_in(scenario.url(), &auth).await;
        for packets in [
            [format!("40/notifications,{auth}"), "41".to_owned()],
            [format!("40{auth}"), "41/notifications,".to_owned()],
        ] {
            for packet in packets {
                socket.send(&packet).await;
            }
            sleep(4 * SECOND).await;
        }
        // An event with the ack id 7, and its ack.
        socket.send(r#"427["notification:list"]"#).await;
        while !socket.frame().await.expect("it is open").starts_with("437[") {}
    };
    let all = join_all((0..PARALLEL).map(leave));
    scenario.run_during(async { tokio::join!(all, stay()) }).await;
    scenario.assert_nothing_left().await;
}
