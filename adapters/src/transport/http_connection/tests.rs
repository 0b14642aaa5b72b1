//! Responses with a [`DeferredBody`], on real connections.

use std::time::Duration;

use axum::Json;
use axum::routing::{get, post};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::timeout;

use super::*;
use crate::transport::ServerSettings;
use crate::transport::server::tests::{PATIENCE, Running, received_until_end, response, serving};

const LATER: &[u8] = b"GET /later HTTP/1.1\r\nhost: x\r\n\r\n";
/// A number of bytes that exceeds the buffers of both sides of a connection.
const LARGE: usize = 16 << 20;

/// A response whose body follows after a delay, or never if it is `None`.
fn later(body: Option<&'static str>) -> Response {
    DeferredBody::attach(([("x-head", "early")], Body::empty()).into_response(), async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        body.map(Bytes::from)
    })
}

/// Sends a message when it is dropped.
struct OnDrop(UnboundedSender<()>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

fn router(dropped: UnboundedSender<()>) -> Router {
    let never = move || {
        let guard = OnDrop(dropped.clone());
        async move {
            DeferredBody::attach(StatusCode::OK.into_response(), async move {
                let _guard = guard;
                pending().await
            })
        }
    };
    Router::new()
        .route("/later", get(async || later(Some("later"))).post(async || later(Some("later"))))
        .route("/replaced", get(async || later(None)))
        .route("/never", get(never))
        .route("/large", get(async || vec![b'x'; LARGE]))
        .route("/echo", post(async |Json(number): Json<u32>| number.to_string()))
}

async fn server() -> Running {
    serving(ServerSettings::default(), router(unbounded_channel().0)).await
}

#[tokio::test]
async fn deferred_response_has_the_router_s_head_and_the_length_of_its_body() {
    let server = server().await;
    let mut client = server.connect().await;
    client.write_all(LATER).await.unwrap();
    let response = response(&mut client, "later").await;
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    for field in ["x-head: early", "content-length: 5", "date: "] {
        assert!(response.contains(&format!("\r\n{field}")), "{response}");
    }
    assert_eq!(response.matches("content-length").count(), 1, "{response}");
    assert!(!response.contains("connection"), "{response}");
}

#[tokio::test]
async fn further_requests_of_both_kinds_follow_on_the_same_connection() {
    let server = server().await;
    let mut client = server.connect().await;
    for number in 0..3 {
        client.write_all(LATER).await.unwrap();
        response(&mut client, "later").await;
        let echo = format!(
            "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
             content-length: 1\r\n\r\n{number}"
        );
        client.write_all(echo.as_bytes()).await.unwrap();
        response(&mut client, &format!("\r\n\r\n{number}")).await;
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = server().await;
    let mut client = server.connect().await;
    let echo = b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                 content-length: 1\r\n\r\n7";
    client.write_all(&[LATER, LATER, echo].concat()).await.unwrap();
    let responses = response(&mut client, "\r\n\r\n7").await;
    assert_eq!(responses.matches("\r\n\r\nlater").count(), 2, "{responses}");
}

#[tokio::test]
async fn large_response_before_a_deferred_one_is_complete() {
    let server = server().await;
    let mut client = server.connect().await;
    let large = b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n";
    let last = b"GET /later HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    client.write_all(&[large, LATER, last].concat()).await.unwrap();
    // By now the deferred bodies are ready, and the buffers are full.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let received = received_until_end(&mut client).await;
    assert_eq!(received.matches("xxxxxxxx").count(), LARGE / 8);
    assert_eq!(received.matches("\r\n\r\nlater").count(), 2);
}

#[tokio::test]
async fn request_that_cannot_be_parked_gets_the_same_response() {
    let server = server().await;
    for request in [
        "GET /later HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        "GET /later HTTP/1.0\r\nhost: x\r\n\r\n",
        "POST /later HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\nconnection: close\r\n\r\nabc",
    ] {
        let response = server.response_to(request.as_bytes()).await;
        assert!(response.starts_with("HTTP/1.") && response.ends_with("later"), "{response}");
        assert!(response.contains("\r\ncontent-length: 5\r\n"), "{response}");
    }
}

#[tokio::test]
async fn body_that_never_comes_is_a_bad_request() {
    let server = server().await;
    for further_field in ["", "connection: close\r\n"] {
        let request = format!("GET /replaced HTTP/1.1\r\nhost: x\r\n{further_field}\r\n");
        let response = server.response_to(request.as_bytes()).await;
        assert!(response.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{response}");
    }
}

#[tokio::test]
async fn deferred_body_is_dropped_when_the_client_closes_the_connection() {
    let (dropped, mut drops) = unbounded_channel();
    let server = serving(ServerSettings::default(), router(dropped)).await;
    let mut client = server.connect().await;
    client.write_all(b"GET /never HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    server.until_open(1).await;
    drop(client);
    timeout(PATIENCE, drops.recv()).await.expect("the body is dropped").unwrap();
    server.until_open(0).await;
}

#[tokio::test]
async fn stop_waits_for_deferred_responses_and_closes_their_connections() {
    let server = server().await;
    let mut client = server.connect().await;
    client.write_all(LATER).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let stopped = server.stop();
    let response = received_until_end(&mut client).await;
    assert!(response.contains("\r\nconnection: close\r\n"), "{response}");
    assert!(response.ends_with("later"), "{response}");
    timeout(PATIENCE, stopped).await.expect("the server stops").unwrap();
}
