//! The id of a polling session is a secret: a client that knows it can read and end the session.

use belfry_tests::http::{Http, send};
use belfry_tests::process::Builder;
use belfry_tests::raw_socket::RawSocket;
use reqwest::Method;

use super::polling_client::PollingClient;
use crate::setup::{Setup, signed_in};

/// Sends requests with the id of a new session, also requests for which it is not valid, and returns the id.
async fn use_session(url: &str, token: &str) -> String {
    let (client, sid) = PollingClient::signed_in(url, token).await;
    assert!(sid.len() >= 32, "192 bits in base64url: {sid}");
    assert_eq!(client.send(r#"420["notification:list"]"#).await.status, 200);
    assert_eq!(client.poll().await.status, 200);
    let socket = RawSocket::upgrade(url, &format!("&sid={sid}")).await;
    if let Some(mut socket) = socket {
        socket.send("2probe").await;
        let _ = socket.frame().await;
    }
    client.send("no packet").await;
    let http = Http::new(url);
    for (method, query) in [
        (Method::GET, format!("EIO=4&transport=polling&sid={sid}")),
        (Method::GET, format!("EIO=4&transport=websocket&sid={sid}")),
        (Method::GET, format!("EIO=3&transport=polling&sid={sid}")),
        (Method::PUT, format!("EIO=4&transport=polling&sid={sid}")),
        (Method::GET, format!("sid={sid}")),
    ] {
        let _ = send(http.request(method, &format!("/socket.io/?{query}"))).await;
        let _ = http.get(&format!("/v1/notifications?{query}")).await;
    }
    sid
}

#[tokio::test]
async fn session_id_is_in_no_log_line_of_any_level() {
    for format in ["text", "json"] {
        let configure =
            |it: Builder| it.setting("log.level", "trace").setting("log.format", format);
        let deployment = Setup::Embedded.own_with(configure).await;
        let ada = deployment.user("ada");
        let url = deployment.belfry.url();
        let first = use_session(url, &ada.token()).await;
        // Between the two sessions, a device on an ordinary client connects.
        let device = signed_in(ada.node()).await;
        let second = use_session(url, &ada.token()).await;
        drop(device);
        let log = deployment.belfry.log();
        assert!(log.contains("TRACE") || log.contains("DEBUG"), "the log has details: {log}");
        for sid in [first, second] {
            assert!(!log.contains(&sid), "{log}");
        }
    }
}
