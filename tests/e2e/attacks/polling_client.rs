//! A polling client for attacks.

use belfry_tests::http::{Answer, Http, send};
use reqwest::Method;
use serde_json::{Value, json};

/// A session by HTTP polling, without a client library.
pub(super) struct PollingClient {
    http: Http,
    path: String,
}

impl PollingClient {
    /// Opens a session and does not sign in. Returns the session's id, too.
    pub(super) async fn open(url: &str) -> (Self, String) {
        let http = Http::new(url);
        let path = "/socket.io/?EIO=4&transport=polling".to_owned();
        let opened = http.get(&path).await;
        // After the packet type, one digit, the packet is JSON.
        let open: Value = serde_json::from_str(&opened.text[1..]).unwrap();
        let sid = open["sid"].as_str().unwrap().to_owned();
        (Self { http, path: format!("{path}&sid={sid}") }, sid)
    }

    /// Opens a session and signs in. Returns the session's id, too.
    pub(super) async fn signed_in(url: &str, token: &str) -> (Self, String) {
        let (client, sid) = Self::open(url).await;
        client.send(format!("40{}", json!({ "token": token }))).await;
        let mut received = String::new();
        while !received.contains("notification:sync") {
            received += &client.poll().await.text;
        }
        (client, sid)
    }

    pub(super) async fn send(&self, packets: impl Into<reqwest::Body>) -> Answer {
        send(self.http.request(Method::POST, &self.path).body(packets)).await
    }

    pub(super) async fn poll(&self) -> Answer {
        self.http.get(&self.path).await
    }
}
