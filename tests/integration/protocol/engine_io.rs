//! Engine.IO, version 4: the rules of the protocol's published test suite, those that its description
//! says with a MUST, and what clients rely on while they change from polling to a WebSocket.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use belfry_tests::raw_http;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::client::{
    Frame, PATIENCE, Polling, SEPARATOR, WebSocket, parse_open_packet, request, with_head_start,
};
use super::peer::{Case, MAX_PAYLOAD, Peer, Timers, cases};

/// For any server: what carries the messages.
pub(super) fn transport_cases() -> Vec<Case> {
    let mut all = cases![Timers::LONG;
        polling_handshake_is_answered_with_open_packet,
        websocket_handshake_is_answered_with_open_packet,
        polling_handshake_with_wrong_version_is_rejected,
        websocket_handshake_with_wrong_version_is_rejected,
        polling_handshake_with_unknown_transport_is_rejected,
        websocket_handshake_with_unknown_transport_is_rejected,
        handshake_by_another_method_than_get_is_rejected,
        handshake_for_websocket_without_upgrade_header_is_rejected,
        sessions_have_different_ids,
        polling_request_with_unknown_sid_is_rejected,
        websocket_with_unknown_sid_is_rejected,
        session_request_without_version_is_rejected,
        session_request_without_transport_is_rejected,
        rejected_request_is_answered_with_numeric_code,
        pings_come_by_polling,
        pings_come_by_websocket,
        polled_close_packet_ends_session,
        close_packet_by_websocket_ends_session,
        invalid_packet_by_polling_closes_session,
        invalid_packet_by_websocket_closes_session,
        post_while_another_is_active_is_rejected_and_closes_session,
        body_that_is_too_large_is_rejected,
        chunked_body_that_is_too_large_is_rejected,
        websocket_message_that_is_too_large_closes_session,
        polling_request_for_websocket_session_is_rejected,
        second_websocket_for_websocket_session_is_closed,
        pings_come_by_websocket_after_upgrade,
        upgrade_packet_right_behind_the_probe_is_taken,
        polling_request_after_upgrade_is_rejected,
        websocket_after_upgrade_is_closed,
        second_websocket_during_a_probe_is_closed,
        polls_during_a_probe_are_throttled,
    ];
    all.extend(cases![Timers::WITHOUT_PINGS;
        poll_during_a_probe_is_answered_with_noop,
    ]);
    all.extend(cases![Timers::SHORT_PING_TIMEOUT;
        polling_session_without_pong_is_closed,
        websocket_session_without_pong_is_closed,
    ]);
    all
}

/// For a server that sends every message back.
pub(super) fn message_cases() -> Vec<Case> {
    let mut all = cases![Timers::LONG;
        text_packet_is_carried_by_polling,
        several_packets_are_carried_in_one_payload,
        binary_packet_is_carried_in_base64_by_polling,
        characters_beyond_ascii_are_carried_by_both_transports,
        payload_of_the_largest_size_is_taken,
        text_packet_is_carried_by_websocket,
        binary_packet_is_carried_by_websocket,
        messages_go_by_websocket_after_upgrade,
        websocket_that_does_not_probe_is_closed_and_polling_goes_on,
        websocket_closed_after_the_probe_leaves_the_session_polling,
        upgrade_succeeds_after_one_that_was_broken_off,
        messages_buffered_before_a_probe_arrive_once_and_in_order,
        messages_buffered_during_a_probe_arrive_once_and_in_order,
        messages_polled_during_a_probe_arrive_once_and_in_order,
    ];
    all.extend(cases![Timers::WITHOUT_PINGS;
        poll_while_another_is_active_is_rejected_and_closes_session,
        poll_that_another_overlaps_is_answered_with_close_packet,
        pending_poll_is_answered_with_noop_when_the_client_closes,
        pending_poll_is_answered_with_noop_when_a_websocket_probes,
    ]);
    all.extend(cases![Timers::SHORT_UPGRADE_TIMEOUT;
        upgrade_that_is_never_completed_leaves_the_session_polling,
    ]);
    all
}

// Handshake

fn check_open_packet(open: &Value, peer: &Peer, upgrades: &Value) -> Result<()> {
    let fields = open.as_object().context("it is no object")?;
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
    let Frame::Text(open) = socket.frame().await? else { bail!("no text first") };
    check_open_packet(&parse_open_packet(&open)?, peer, &json!([]))
}

async fn polling_handshake_with_wrong_version_is_rejected(peer: &Peer) -> Result<()> {
    for query in ["transport=polling", "EIO=abc&transport=polling", "EIO=3&transport=polling"] {
        request(peer, Method::GET, query).await?.expect_status(400).context(query)?;
    }
    Ok(())
}

async fn websocket_handshake_with_wrong_version_is_rejected(peer: &Peer) -> Result<()> {
    WebSocket::expect_refused(peer, "transport=websocket").await?;
    WebSocket::expect_refused(peer, "EIO=abc&transport=websocket").await
}

async fn polling_handshake_with_unknown_transport_is_rejected(peer: &Peer) -> Result<()> {
    for query in ["EIO=4", "EIO=4&transport=abc", ""] {
        request(peer, Method::GET, query).await?.expect_status(400).context(query)?;
    }
    Ok(())
}

async fn websocket_handshake_with_unknown_transport_is_rejected(peer: &Peer) -> Result<()> {
    WebSocket::expect_refused(peer, "EIO=4").await?;
    WebSocket::expect_refused(peer, "EIO=4&transport=abc").await
}

async fn handshake_by_another_method_than_get_is_rejected(peer: &Peer) -> Result<()> {
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

// What every request of a session has to have

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
        WebSocket::expect_refused(peer, &query).await?;
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
    let (session, mut socket) = upgraded(peer).await?;
    // By then the upgrade is complete.
    expect_pings(&mut socket, 1).await?;
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

// Heartbeat

async fn pings_come_by_polling(peer: &Peer) -> Result<()> {
    let session = Polling::open(peer).await?;
    for _ in 0..3 {
        session.get().await?.expect_status(200)?.expect_body("2")?;
        session.send("3").await?;
    }
    Ok(())
}

async fn expect_pings(socket: &mut WebSocket, count: usize) -> Result<()> {
    for _ in 0..count {
        let frame = socket.frame().await?;
        ensure!(frame == Frame::from("2"), "{frame:?} instead of a ping");
        socket.send("3").await;
    }
    Ok(())
}

async fn pings_come_by_websocket(peer: &Peer) -> Result<()> {
    expect_pings(&mut WebSocket::open(peer).await?, 3).await
}

async fn pings_come_by_websocket_after_upgrade(peer: &Peer) -> Result<()> {
    let (_, mut socket) = upgraded(peer).await?;
    expect_pings(&mut socket, 2).await
}

async fn polling_session_without_pong_is_closed(peer: &Peer) -> Result<()> {
    let session = Polling::open(peer).await?;
    let closed = async {
        while session.get().await?.status != 400 {
            sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    };
    timeout(PATIENCE, closed).await.context("the session is still open")?
}

async fn websocket_session_without_pong_is_closed(peer: &Peer) -> Result<()> {
    let mut socket = WebSocket::open(peer).await?;
    let closed = async {
        while socket.frame().await? != Frame::Closed {}
        anyhow::Ok(())
    };
    timeout(PATIENCE, closed).await.context("the session is still open")?
}

// Messages

async fn text_packet_is_carried_by_polling(peer: &Peer) -> Result<()> {
    let session = Polling::open(peer).await?;
    session.send("4hello").await?;
    session.expect(&["4hello"]).await
}

async fn several_packets_are_carried_in_one_payload(peer: &Peer) -> Result<()> {
    let session = Polling::open(peer).await?;
    session.send("4one\x1e4two\x1e4three\x1e4").await?;
    session.expect(&["4one", "4two", "4three", "4"]).await
}

async fn binary_packet_is_carried_in_base64_by_polling(peer: &Peer) -> Result<()> {
    let session = Polling::open(peer).await?;
    session.send("4hello\x1ebAAEC/w==").await?;
    session.expect(&["4hello", "bAAEC/w=="]).await
}

async fn characters_beyond_ascii_are_carried_by_both_transports(peer: &Peer) -> Result<()> {
    let text = "4Grüße, 世界 🔔";
    let session = Polling::open(peer).await?;
    session.send(text).await?;
    session.expect(&[text]).await?;
    let mut socket = WebSocket::open(peer).await?;
    socket.send(text).await;
    socket.expect(text).await
}

async fn payload_of_the_largest_size_is_taken(peer: &Peer) -> Result<()> {
    let session = Polling::open(peer).await?;
    let payload = format!("4{}", "a".repeat(MAX_PAYLOAD - 1));
    session.send(&payload).await?;
    let received = session.receive(1).await?;
    ensure!(received == [payload], "something else comes back");
    Ok(())
}

async fn text_packet_is_carried_by_websocket(peer: &Peer) -> Result<()> {
    let mut socket = WebSocket::open(peer).await?;
    socket.send("4hello").await;
    socket.expect("4hello").await
}

async fn binary_packet_is_carried_by_websocket(peer: &Peer) -> Result<()> {
    let mut socket = WebSocket::open(peer).await?;
    socket.send_binary(&[0, 1, 2, 255]).await;
    socket.expect([0, 1, 2, 255].as_slice()).await
}

// Packets and requests that end a session

/// The server of Node.js closes the session, too, but says 200.
async fn invalid_packet_by_polling_closes_session(peer: &Peer) -> Result<()> {
    for payload in ["abc", "9", "4fine\x1eabc"] {
        let session = Polling::open(peer).await?;
        match session.post(payload).await {
            Ok(answer) => drop(answer.expect_status(400).context(payload)?),
            // The connection may be closed instead of an answer.
            Err(error) if error.is::<reqwest::Error>() => {}
            Err(error) => return Err(error),
        }
        session.get().await?.expect_status(400).context(payload)?;
    }
    Ok(())
}

async fn invalid_packet_by_websocket_closes_session(peer: &Peer) -> Result<()> {
    for packet in ["abc", "9"] {
        let mut socket = WebSocket::open(peer).await?;
        socket.send(packet).await;
        socket.expect_closed().await.context(packet)?;
    }
    Ok(())
}

async fn poll_while_another_is_active_is_rejected_and_closes_session(peer: &Peer) -> Result<()> {
    with_head_start(async |head_start| {
        let session = Polling::open(peer).await?;
        session.settle().await?;
        let _pending = session.pending_get(head_start).await;
        session.get().await?.expect_status(400)?;
        session.get().await?.expect_status(400)?;
        Ok(())
    })
    .await
}

async fn poll_that_another_overlaps_is_answered_with_close_packet(peer: &Peer) -> Result<()> {
    with_head_start(async |head_start| {
        let session = Polling::open(peer).await?;
        session.settle().await?;
        let pending = session.pending_get(head_start).await;
        session.get().await?;
        pending.await??.expect_status(200)?.expect_body("1")?;
        Ok(())
    })
    .await
}

/// The head of a POST that is not followed by its body.
async fn unfinished_post(peer: &Peer, session: &Polling) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(peer.address).await?;
    let head = format!(
        "POST {}?EIO=4&transport=polling&sid={} HTTP/1.1\r\nHost: {}\r\nContent-Length: 9\r\n\r\n3",
        peer.path, session.sid, peer.address
    );
    stream.write_all(head.as_bytes()).await?;
    Ok(stream)
}

async fn post_while_another_is_active_is_rejected_and_closes_session(peer: &Peer) -> Result<()> {
    let session = Polling::open(peer).await?;
    let _unfinished = unfinished_post(peer, &session).await?;
    // The first ones may be earlier at the server than the unfinished one.
    let rejected = async {
        while session.post("3").await?.status != 400 {
            sleep(Duration::from_millis(50)).await;
        }
        anyhow::Ok(())
    };
    timeout(PATIENCE, rejected).await.context("it is not rejected")??;
    session.get().await?.expect_status(400)?;
    Ok(())
}

async fn polled_close_packet_ends_session(peer: &Peer) -> Result<()> {
    let session = Polling::open(peer).await?;
    session.send("1").await?;
    session.get().await?.expect_status(400)?;
    session.post("3").await?.expect_status(400)?;
    Ok(())
}

async fn pending_poll_is_answered_with_noop_when_the_client_closes(peer: &Peer) -> Result<()> {
    with_head_start(async |head_start| {
        let session = Polling::open(peer).await?;
        session.settle().await?;
        let pending = session.pending_get(head_start).await;
        session.send("1").await?;
        pending.await??.expect_status(200)?.expect_body("6")?;
        session.get().await?.expect_status(400)?;
        Ok(())
    })
    .await
}

/// The server of Node.js ignores the packet; in its test suite the missing pong ends the session.
async fn close_packet_by_websocket_ends_session(peer: &Peer) -> Result<()> {
    let mut socket = WebSocket::open(peer).await?;
    socket.send("1").await;
    socket.expect_closed().await
}

// Sizes

async fn body_that_is_too_large_is_rejected(peer: &Peer) -> Result<()> {
    let session = Polling::open(peer).await?;
    match session.post(format!("4{}", "a".repeat(MAX_PAYLOAD))).await {
        Ok(answer) => ensure!([400, 413].contains(&answer.status), "{}", answer.status),
        // The server need not read all of it before it closes the connection.
        Err(error) if error.is::<reqwest::Error>() => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

async fn chunked_body_that_is_too_large_is_rejected(peer: &Peer) -> Result<()> {
    let session = Polling::open(peer).await?;
    let mut request = format!(
        "POST {}?EIO=4&transport=polling&sid={} HTTP/1.1\r\nHost: {}\r\n\
         Transfer-Encoding: chunked\r\n\r\n",
        peer.path, session.sid, peer.address
    );
    let chunk = format!("8000\r\n4{}\r\n", "a".repeat(0x7fff));
    for _ in 0..=MAX_PAYLOAD / 0x8000 {
        request.push_str(&chunk);
    }
    request.push_str("0\r\n\r\n");
    let answer = raw_http::exchange(&format!("http://{}", peer.address), request).await;
    let statuses = raw_http::statuses(&answer);
    ensure!(statuses.first().is_none_or(|status| [400, 413].contains(status)), "{answer}");
    Ok(())
}

async fn websocket_message_that_is_too_large_closes_session(peer: &Peer) -> Result<()> {
    let mut socket = WebSocket::open(peer).await?;
    socket.send(&format!("4{}", "a".repeat(MAX_PAYLOAD))).await;
    socket.expect_closed().await
}

// Upgrade

async fn upgraded(peer: &Peer) -> Result<(Polling, WebSocket)> {
    let session = Polling::open(peer).await?;
    let mut socket = WebSocket::probe(peer, &session.sid).await?;
    socket.send("5").await;
    Ok((session, socket))
}

async fn messages_go_by_websocket_after_upgrade(peer: &Peer) -> Result<()> {
    let (_, mut socket) = upgraded(peer).await?;
    socket.send("4hello").await;
    socket.expect("4hello").await?;
    socket.send_binary(&[1, 2, 3]).await;
    socket.expect([1, 2, 3].as_slice()).await
}

async fn upgrade_packet_right_behind_the_probe_is_taken(peer: &Peer) -> Result<()> {
    let session = Polling::open(peer).await?;
    let mut socket = WebSocket::for_session(peer, &session.sid).await?;
    socket.send("2probe").await;
    socket.send("5").await;
    socket.expect("3probe").await?;
    expect_pings(&mut socket, 1).await
}

async fn poll_during_a_probe_is_answered_with_noop(peer: &Peer) -> Result<()> {
    let session = Polling::open(peer).await?;
    let _socket = WebSocket::probe(peer, &session.sid).await?;
    session.get().await?.expect_status(200)?.expect_body("6")?;
    Ok(())
}

async fn pending_poll_is_answered_with_noop_when_a_websocket_probes(peer: &Peer) -> Result<()> {
    with_head_start(async |head_start| {
        let session = Polling::open(peer).await?;
        session.settle().await?;
        let pending = session.pending_get(head_start).await;
        let _socket = WebSocket::probe(peer, &session.sid).await?;
        pending.await??.expect_status(200)?.expect_body("6")?;
        Ok(())
    })
    .await
}

async fn polling_request_after_upgrade_is_rejected(peer: &Peer) -> Result<()> {
    let (session, mut socket) = upgraded(peer).await?;
    // A ping by the WebSocket is the sign that the server has read the upgrade packet.
    expect_pings(&mut socket, 1).await?;
    session.get().await?.expect_status(400)?;
    session.post("3").await?.expect_status(400)?;
    expect_pings(&mut socket, 1).await
}

async fn polling_request_for_websocket_session_is_rejected(peer: &Peer) -> Result<()> {
    let (mut socket, sid) = WebSocket::open_with_sid(peer).await?;
    let query = format!("EIO=4&transport=polling&sid={sid}");
    request(peer, Method::GET, &query).await?.expect_status(400)?;
    request(peer, Method::POST, &query).await?.expect_status(400)?;
    expect_pings(&mut socket, 1).await
}

async fn websocket_after_upgrade_is_closed(peer: &Peer) -> Result<()> {
    let (session, mut socket) = upgraded(peer).await?;
    expect_pings(&mut socket, 1).await?;
    let query = format!("EIO=4&transport=websocket&sid={}", session.sid);
    WebSocket::expect_refused(peer, &query).await?;
    expect_pings(&mut socket, 1).await
}

/// The server of Node.js would have it probe.
async fn second_websocket_for_websocket_session_is_closed(peer: &Peer) -> Result<()> {
    let (mut socket, sid) = WebSocket::open_with_sid(peer).await?;
    let query = format!("EIO=4&transport=websocket&sid={sid}");
    WebSocket::expect_refused(peer, &query).await?;
    expect_pings(&mut socket, 1).await
}

async fn second_websocket_during_a_probe_is_closed(peer: &Peer) -> Result<()> {
    let session = Polling::open(peer).await?;
    let mut socket = WebSocket::probe(peer, &session.sid).await?;
    let query = format!("EIO=4&transport=websocket&sid={}", session.sid);
    WebSocket::expect_refused(peer, &query).await?;
    socket.send("5").await;
    expect_pings(&mut socket, 1).await
}

/// For so long that a server which does not throttle gives itself away on a busy machine, too.
async fn polls_during_a_probe_are_throttled(peer: &Peer) -> Result<()> {
    let session = Polling::open(peer).await?;
    let _socket = WebSocket::probe(peer, &session.sid).await?;
    let end = Instant::now() + Duration::from_secs(10);
    let mut noops = Vec::new();
    while let Some(rest) = end.checked_duration_since(Instant::now()) {
        let Ok(answer) = timeout(rest, session.get()).await else { break };
        match answer?.expect_status(200)?.body.as_str() {
            "6" => noops.push(Instant::now()),
            "2" => session.send("3").await?,
            other => bail!("{other:?} comes by polling"),
        }
        if let [.., first, _, _, _, _, _, _, _, _, _, last] = noops[..] {
            let took = last - first;
            ensure!(took >= Duration::from_millis(500), "ten polls got their noop in {took:?}");
        }
    }
    Ok(())
}

async fn websocket_that_does_not_probe_is_closed_and_polling_goes_on(peer: &Peer) -> Result<()> {
    let session = Polling::open(peer).await?;
    let mut socket = WebSocket::for_session(peer, &session.sid).await?;
    socket.send("4hello").await;
    socket.expect_closed().await?;
    session.send("4still here").await?;
    session.expect(&["4still here"]).await
}

async fn websocket_closed_after_the_probe_leaves_the_session_polling(peer: &Peer) -> Result<()> {
    let session = Polling::open(peer).await?;
    WebSocket::probe(peer, &session.sid).await?.close().await;
    for text in ["4one", "4two"] {
        session.send(text).await?;
        session.expect(&[text]).await?;
    }
    Ok(())
}

async fn upgrade_succeeds_after_one_that_was_broken_off(peer: &Peer) -> Result<()> {
    let session = Polling::open(peer).await?;
    WebSocket::probe(peer, &session.sid).await?.close().await;
    // Refused until the server has seen the end of the first one.
    let second = async {
        loop {
            if let Ok(socket) = WebSocket::probe(peer, &session.sid).await {
                return socket;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    let mut socket = timeout(PATIENCE, second).await.context("no second upgrade")?;
    socket.send("5").await;
    socket.send("4hello").await;
    socket.expect("4hello").await
}

async fn upgrade_that_is_never_completed_leaves_the_session_polling(peer: &Peer) -> Result<()> {
    let session = Polling::open(peer).await?;
    let mut socket = WebSocket::probe(peer, &session.sid).await?;
    session.send("4while it probes").await?;
    socket.expect_closed().await?;
    session.expect(&["4while it probes"]).await?;
    session.send("4afterwards").await?;
    session.expect(&["4afterwards"]).await
}

async fn messages_buffered_before_a_probe_arrive_once_and_in_order(peer: &Peer) -> Result<()> {
    let session = Polling::open(peer).await?;
    session.send("4one\x1e4two\x1e4three").await?;
    let mut socket = WebSocket::probe(peer, &session.sid).await?;
    socket.send("5").await;
    socket.send("4four").await;
    for text in ["4one", "4two", "4three", "4four"] {
        socket.expect(text).await?;
    }
    Ok(())
}

async fn messages_buffered_during_a_probe_arrive_once_and_in_order(peer: &Peer) -> Result<()> {
    let session = Polling::open(peer).await?;
    let mut socket = WebSocket::probe(peer, &session.sid).await?;
    session.send("4one\x1e4two\x1e4three").await?;
    socket.send("5").await;
    socket.send("4four").await;
    for text in ["4one", "4two", "4three", "4four"] {
        socket.expect(text).await?;
    }
    Ok(())
}

/// A server may answer polls during a probe with what is due, or keep that for the WebSocket.
async fn messages_polled_during_a_probe_arrive_once_and_in_order(peer: &Peer) -> Result<()> {
    let session = Polling::open(peer).await?;
    let mut socket = WebSocket::probe(peer, &session.sid).await?;
    let sent: Vec<_> = (0..10).map(|n| format!("4{n}")).collect();
    let mut received = Vec::new();
    for (n, text) in sent.iter().enumerate() {
        session.send(text).await?;
        if n % 3 == 0 {
            let polled = session.get().await?.expect_status(200)?.body;
            let messages = polled.split(SEPARATOR).filter(|packet| packet.starts_with('4'));
            received.extend(messages.map(str::to_owned));
        }
    }
    socket.send("5").await;
    while received.len() < sent.len() {
        match socket.packet().await? {
            Frame::Text(text) => received.push(text),
            frame => bail!("{frame:?} after {received:?}"),
        }
    }
    ensure!(received == sent, "{received:?}");
    socket.send("4last").await;
    socket.expect("4last").await
}
