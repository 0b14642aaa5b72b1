//! Handshakes, and the parameters that every request of a session needs.

use anyhow::{Context, Result, bail, ensure};
use reqwest::Method;
use serde_json::{Value, json};

use super::super::client::{Frame, Polling, WebSocket, parse_open_packet, request};
use super::super::peer::{Case, MAX_PAYLOAD, Peer, Timers, cases};

pub(super) fn transport_cases() -> Vec<Case> {
    cases![Timers::LONG;
        polling_handshake_is_answered_with_open_packet,
        websocket_handshake_is_answered_with_open_packet,
        polling_handshake_with_wrong_version_is_rejected,
        websocket_handshake_with_wrong_version_is_rejected,
        polling_handshake_with_unknown_transport_is_rejected,
        websocket_handshake_with_unknown_transport_is_rejected,
        handshake_with_a_method_other_than_get_is_rejected,
        handshake_for_websocket_without_upgrade_header_is_rejected,
        sessions_have_different_ids,
        polling_request_with_unknown_sid_is_rejected,
        websocket_with_unknown_sid_is_rejected,
        session_request_without_version_is_rejected,
        session_request_without_transport_is_rejected,
        rejected_request_is_answered_with_numeric_code,
    ]
}

fn check_open_packet(open: &Value, peer: &Peer, upgrades: &Value) -> Result<()> {
    let fields = open.as_object().context("not an object")?;
    let mut names: Vec<_> = fields.keys().map(String::as_str).collect();
    names.sort_unstable();
    ensure!(names == ["maxPayload", "pingInterval", "pingTimeout", "sid", "upgrades"], "{open}");
    ensure!(open["sid"].as_str().is_some_and(|sid| !sid.is_empty()), "{open}");
    ensure!(open["upgrades"] == *upgrades, "{open}");
    ensure!(open["pingInterval"] == json!(peer.timers.ping_interval.as_millis()), "{open}");
    ensure!(open["pingTimeout"] == json!(peer.timers.ping_timeout.as_millis()), "{open}");
    ensure!(open["maxPayload"] == MAX_PAYLOAD, "{open}");
    Ok(())
}

async fn polling_handshake_is_answered_with_open_packet(peer: &Peer) -> Result<()> {
    let answer = request(peer, Method::GET, "EIO=4&transport=polling").await?.expect_status(200)?;
    ensure!(answer.content_type.starts_with("text/plain"), "{}", answer.content_type);
    check_open_packet(&parse_open_packet(&answer.body)?, peer, &json!(["websocket"]))
}

async fn websocket_handshake_is_answered_with_open_packet(peer: &Peer) -> Result<()> {
    let mut socket = WebSocket::connect(peer, "EIO=4&transport=websocket").await?;
    let Frame::Text(open) = socket.frame().await? else { bail!("the first frame is not text") };
    check_open_packet(&parse_open_packet(&open)?, peer, &json!([]))
}

async fn polling_handshake_with_wrong_version_is_rejected(peer: &Peer) -> Result<()> {
    for query in ["transport=polling", "EIO=abc&transport=polling", "EIO=3&transport=polling"] {
        request(peer, Method::GET, query).await?.expect_status(400).context(query)?;
    }
    Ok(())
}

async fn websocket_handshake_with_wrong_version_is_rejected(peer: &Peer) -> Result<()> {
    WebSocket::expect_rejected(peer, "transport=websocket").await?;
    WebSocket::expect_rejected(peer, "EIO=abc&transport=websocket").await
}

async fn polling_handshake_with_unknown_transport_is_rejected(peer: &Peer) -> Result<()> {
    for query in ["EIO=4", "EIO=4&transport=abc", ""] {
        request(peer, Method::GET, query).await?.expect_status(400).context(query)?;
    }
    Ok(())
}

async fn websocket_handshake_with_unknown_transport_is_rejected(peer: &Peer) -> Result<()> {
    WebSocket::expect_rejected(peer, "EIO=4").await?;
    WebSocket::expect_rejected(peer, "EIO=4&transport=abc").await
}

async fn handshake_with_a_method_other_than_get_is_rejected(peer: &Peer) -> Result<()> {
    for method in [Method::POST, Method::PUT, Method::DELETE] {
        request(peer, method, "EIO=4&transport=polling").await?.expect_status(400)?;
    }
    Ok(())
}

async fn handshake_for_websocket_without_upgrade_header_is_rejected(peer: &Peer) -> Result<()> {
    request(peer, Method::GET, "EIO=4&transport=websocket").await?.expect_status(400)?;
    Ok(())
}

async fn sessions_have_different_ids(peer: &Peer) -> Result<()> {
    let polling = [Polling::open(peer).await?.sid, Polling::open(peer).await?.sid];
    let (_socket, sid) = WebSocket::open_with_sid(peer).await?;
    ensure!(polling[0] != polling[1] && !polling.contains(&sid), "{polling:?} and {sid}");
    Ok(())
}

const UNKNOWN_SIDS: [&str; 3] = ["unknown", "AAAAAAAAAAAAAAAA", "%00"];

async fn polling_request_with_unknown_sid_is_rejected(peer: &Peer) -> Result<()> {
    for sid in UNKNOWN_SIDS {
        let query = format!("EIO=4&transport=polling&sid={sid}");
        for method in [Method::GET, Method::POST] {
            request(peer, method, &query).await?.expect_status(400).context(sid)?;
        }
    }
    Ok(())
}

async fn websocket_with_unknown_sid_is_rejected(peer: &Peer) -> Result<()> {
    for sid in UNKNOWN_SIDS {
        let query = format!("EIO=4&transport=websocket&sid={sid}");
        WebSocket::expect_rejected(peer, &query).await?;
    }
    Ok(())
}

async fn session_request_without_version_is_rejected(peer: &Peer) -> Result<()> {
    let session = Polling::open(peer).await?;
    let query = format!("transport=polling&sid={}", session.sid);
    request(peer, Method::GET, &query).await?.expect_status(400)?;
    request(peer, Method::POST, &query).await?.expect_status(400)?;
    Ok(())
}

async fn session_request_without_transport_is_rejected(peer: &Peer) -> Result<()> {
    let session = Polling::open(peer).await?;
    let query = format!("EIO=4&sid={}", session.sid);
    request(peer, Method::GET, &query).await?.expect_status(400)?;
    request(peer, Method::POST, &query).await?.expect_status(400)?;
    Ok(())
}

async fn rejected_request_is_answered_with_numeric_code(peer: &Peer) -> Result<()> {
    let (session, mut socket) = WebSocket::upgraded(peer).await?;
    // The ping shows that the upgrade is complete.
    socket.expect_pings(1).await?;
    // The codes of the Node.js server: unknown transport, unknown sid, bad handshake method, bad request,
    // unsupported protocol version.
    let wrong_transport = format!("EIO=4&transport=polling&sid={}", session.sid);
    for (method, query, code) in [
        (Method::GET, "EIO=4&transport=abc", 0),
        (Method::GET, "EIO=4&transport=polling&sid=unknown", 1),
        (Method::POST, "EIO=4&transport=polling", 2),
        (Method::GET, wrong_transport.as_str(), 3),
        (Method::GET, "EIO=3&transport=polling", 5),
    ] {
        let answer = request(peer, method, query).await?.expect_status(400).context(code)?;
        let is_json = answer.content_type.starts_with("application/json");
        ensure!(is_json, "code {code}: {}", answer.content_type);
        let body: Value = serde_json::from_str(&answer.body).context(code)?;
        ensure!(body["code"] == code && body["message"].is_string(), "code {code}: {body}");
    }
    Ok(())
}
