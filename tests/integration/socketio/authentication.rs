//! Rejected connects and expiring tokens. The tests' tokens are `<user>:<expiry in milliseconds>`; `40` is a
//! connect, `44` its rejection and `41` a disconnect.

use std::time::Instant;

use belfry_tests::wait::until_true;
use serde_json::{Value, json};

use super::{RawSocket, node};

#[tokio::test]
async fn rejected_connect_gets_a_code_and_its_websocket_is_closed() {
    let node = node().await;
    node.clock.set(1_000);
    for (namespace, auth, code) in [
        ("", String::new(), "token_missing"),
        ("", "{}".to_owned(), "token_missing"),
        ("", json!({ "token": "" }).to_string(), "token_missing"),
        ("", json!({ "token": "forged" }).to_string(), "token_invalid"),
        ("/notifications,", json!({ "token": "ada:1000" }).to_string(), "token_expired"),
        ("/notifications,", "[1]".to_owned(), "token_missing"),
    ] {
        let mut raw = RawSocket::open(&node).await;
        raw.send(&format!("40{namespace}{auth}")).await;
        let rejection = raw.frame().await.unwrap();
        let rejected = Instant::now();
        assert_eq!(rejection, format!("44{namespace}{{\"message\":\"{code}\"}}"));
        assert!(raw.is_closed().await);
        println!("{code}: closed {:?} after the rejection", rejected.elapsed());
    }
    assert_eq!(node.sessions.count(), 0);
}

#[tokio::test]
async fn rejected_connect_of_a_polling_client_ends_its_session() {
    let node = node().await;
    let http = belfry_tests::http::client();
    let base = format!("http://{}/socket.io/?EIO=4&transport=polling", node.address);
    let open = http.get(&base).send().await.unwrap().text().await.unwrap();
    let open: Value = serde_json::from_str(&open[1..]).unwrap();
    let session = format!("{base}&sid={}", open["sid"].as_str().unwrap());

    let auth = json!({ "token": "forged" });
    http.post(&session).body(format!("40{auth}")).send().await.unwrap();
    let rejected = Instant::now();
    let mut received = String::new();
    while !received.contains("44") {
        let response = http.get(&session).send().await.unwrap();
        assert_eq!(response.status(), 200, "received before the end: {received}");
        received = response.text().await.unwrap();
    }
    assert!(received.contains(r#"44{"message":"token_invalid"}"#), "{received}");
    // The server responds with 400 to an unknown session id.
    until_true("the session is gone", async || {
        http.get(&session).send().await.unwrap().status() == 400
    })
    .await;
    println!("polling session gone {:?} after the rejected connect", rejected.elapsed());
}

#[tokio::test]
async fn session_and_transport_end_when_the_token_expires() {
    let node = node().await;
    let stop = tokio_util::sync::CancellationToken::new();
    let sessions = node.sessions.clone();
    tokio::spawn({
        let stop = stop.clone();
        async move { sessions.run_expiry(stop).await }
    });
    let (mut ada, _) = RawSocket::signed_in(&node, json!({ "token": "ada:100000" })).await;
    node.clock.set(50_000);
    let (event, expiring) = ada.event().await;
    assert_eq!(event, "auth:expiring");
    assert_eq!(expiring, json!({ "expiresAt": "1970-01-01T00:01:40.000Z" }));

    ada.send(&format!("421{}", json!(["auth:refresh", { "token": "ada:200000" }]))).await;
    assert_eq!(ada.ack(1).await["data"]["expiresAt"], "1970-01-01T00:03:20.000Z");
    node.clock.set(100_000);
    ada.send(r#"422["notification:unread_count"]"#).await;
    assert_eq!(ada.ack(2).await["status"], "ok");

    node.clock.set(200_000);
    // The clock has passed both deadlines of the new token, so a warning may come first.
    let (mut event, mut payload) = ada.event().await;
    if event == "auth:expiring" {
        (event, payload) = ada.event().await;
    }
    assert_eq!((event.as_str(), &payload["code"]), ("exception", &json!("token_expired")));
    assert_eq!(ada.frame().await.as_deref(), Some("41"));
    assert!(ada.is_closed().await);
    stop.cancel();
}
