//! Limits on the bodies that a polling client posts. In packets, `4` is an Engine.IO message, `40` a connect,
//! `42` an event and `1` the close of the session.

use std::time::Duration;

use belfry_adapters::inbound::socketio::SocketIoSettings;
use belfry_adapters::inbound::socketio::engine::EngineSettings;
use tokio::net::TcpStream;

use super::{Node, PATIENCE, node, node_with, padded};

/// Sends a request, which may be incomplete, and returns everything that is received until the connection ends.
async fn exchange(node: &Node, request: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    // The server may respond and close the connection before all bytes are sent.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut received = Vec::new();
    let reading = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut received));
    let _ = reading.await.expect("the connection ends in time");
    String::from_utf8(received).unwrap()
}

/// Opens a polling session. Returns the beginnings of the heads of its POST and GET requests.
async fn polling_session(node: &Node) -> (String, String) {
    let path = "/socket.io/?EIO=4&transport=polling";
    let open = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let opened = exchange(node, &open).await;
    let (_, rest) = opened.split_once("\"sid\":\"").expect(&opened);
    let path = format!("{path}&sid={}", rest.split_once('"').unwrap().0);
    (format!("POST {path} HTTP/1.1\r\nhost: x\r\n"), format!("GET {path} HTTP/1.1\r\nhost: x\r\n"))
}

#[tokio::test]
async fn post_body_above_the_size_or_time_limit_is_rejected_and_ends_the_session() {
    let body_timeout = Duration::from_millis(500);
    let engine = EngineSettings { max_payload: 1_000, body_timeout, ..EngineSettings::default() };
    let node = node_with(SocketIoSettings { engine, ..SocketIoSettings::default() }).await;
    let chunk = format!("ff\r\n{}\r\n", "x".repeat(255));
    for (body, status) in [
        ("content-length: 1000\r\n\r\n4".to_owned(), 408),
        ("content-length: 1000000\r\n\r\n4".to_owned(), 413),
        ("transfer-encoding: chunked\r\n\r\n1\r\n4\r\n".to_owned(), 408),
        (format!("content-length: 1001\r\n\r\n{}", "4".repeat(1_001)), 413),
        (format!("transfer-encoding: chunked\r\n\r\n{}", chunk.repeat(5)), 413),
    ] {
        let (post, poll) = polling_session(&node).await;
        let response = exchange(&node, &format!("{post}{body}")).await;
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{body:.40}: {response}");
        let response = exchange(&node, &format!("{poll}connection: close\r\n\r\n")).await;
        assert!(
            !response.starts_with("HTTP/1.1 200 ") || response.ends_with("\r\n\r\n1"),
            "{response}"
        );
    }
    let (post, _) = polling_session(&node).await;
    let fits = "connection: close\r\ncontent-length: 4\r\n\r\n40{}";
    let response = exchange(&node, &format!("{post}{fits}")).await;
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
}

#[tokio::test]
async fn client_outside_of_all_namespaces_may_post_only_small_bodies() {
    const MAX_BYTES: usize = 32 * 1024;
    let node = node().await;
    let post_of = |post: &str, body: &str| {
        let length = body.len();
        format!("{post}connection: close\r\ncontent-length: {length}\r\n\r\n{body}")
    };
    let connect = |bytes| padded(r#"40{"token":"ada:9999999","x":""#, r#""}"#, bytes);
    let (post, _) = polling_session(&node).await;
    let response = exchange(&node, &post_of(&post, &connect(MAX_BYTES + 1))).await;
    assert!(response.starts_with("HTTP/1.1 413 "), "{response}");

    let (post, poll) = polling_session(&node).await;
    let response = exchange(&node, &post_of(&post, &connect(MAX_BYTES))).await;
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    let response = exchange(&node, &format!("{poll}connection: close\r\n\r\n")).await;
    assert!(response.contains("\r\n\r\n40{"), "{response}");
    let event = padded(r#"42["unknown",""#, r#""]"#, 200_000);
    let response = exchange(&node, &post_of(&post, &event)).await;
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
}
