//! The upgrade from polling to a WebSocket: the client sends the probe `2probe` on the WebSocket, the server
//! answers with `3probe`, and the client completes the upgrade with `5`. Meanwhile the server answers polls
//! with the noop `6`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use reqwest::Method;
use tokio::time::{sleep, timeout};

use super::super::client::{
    Frame, PATIENCE, Polling, SEPARATOR, WebSocket, request, with_head_start,
};
use super::super::peer::{Case, Peer, Timers, cases};

pub(super) fn transport_cases() -> Vec<Case> {
    let mut all = cases![Timers::LONG;
        polling_request_for_websocket_session_is_rejected,
        second_websocket_for_websocket_session_is_closed,
        upgrade_packet_right_after_the_probe_is_accepted,
        polling_request_after_upgrade_is_rejected,
        websocket_after_upgrade_is_closed,
        second_websocket_during_a_probe_is_closed,
        polls_during_a_probe_are_throttled,
    ];
    all.extend(cases![Timers::WITHOUT_PINGS;
        poll_during_a_probe_is_answered_with_noop,
    ]);
    all
}

pub(super) fn message_cases() -> Vec<Case> {
    let mut all = cases![Timers::LONG;
        messages_use_the_websocket_after_upgrade,
        websocket_that_does_not_probe_is_closed_and_polling_continues,
        websocket_closed_after_the_probe_leaves_the_session_polling,
        upgrade_succeeds_after_an_aborted_one,
        messages_buffered_before_a_probe_arrive_once_and_in_order,
        messages_buffered_during_a_probe_arrive_once_and_in_order,
        messages_polled_during_a_probe_arrive_once_and_in_order,
    ];
    all.extend(cases![Timers::WITHOUT_PINGS;
        pending_poll_is_answered_with_noop_when_a_websocket_probes,
    ]);
    all.extend(cases![Timers::SHORT_UPGRADE_TIMEOUT;
        upgrade_that_is_never_completed_leaves_the_session_polling,
    ]);
    all
}

async fn messages_use_the_websocket_after_upgrade(peer: &Peer) -> Result<()> {
    let (_, mut socket) = WebSocket::upgraded(peer).await?;
    socket.send("4hello").await;
    socket.expect("4hello").await?;
    socket.send_binary(&[1, 2, 3]).await;
    socket.expect([1, 2, 3].as_slice()).await
}

async fn upgrade_packet_right_after_the_probe_is_accepted(peer: &Peer) -> Result<()> {
    let session = Polling::open(peer).await?;
    let mut socket = WebSocket::for_session(peer, &session.sid).await?;
    socket.send("2probe").await;
    socket.send("5").await;
    socket.expect("3probe").await?;
    socket.expect_pings(1).await
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
    let (session, mut socket) = WebSocket::upgraded(peer).await?;
    // A ping on the WebSocket shows that the server has read the upgrade packet.
    socket.expect_pings(1).await?;
    session.get().await?.expect_status(400)?;
    session.post("3").await?.expect_status(400)?;
    socket.expect_pings(1).await
}

async fn polling_request_for_websocket_session_is_rejected(peer: &Peer) -> Result<()> {
    let (mut socket, sid) = WebSocket::open_with_sid(peer).await?;
    let query = format!("EIO=4&transport=polling&sid={sid}");
    request(peer, Method::GET, &query).await?.expect_status(400)?;
    request(peer, Method::POST, &query).await?.expect_status(400)?;
    socket.expect_pings(1).await
}

async fn websocket_after_upgrade_is_closed(peer: &Peer) -> Result<()> {
    let (session, mut socket) = WebSocket::upgraded(peer).await?;
    socket.expect_pings(1).await?;
    let query = format!("EIO=4&transport=websocket&sid={}", session.sid);
    WebSocket::expect_rejected(peer, &query).await?;
    socket.expect_pings(1).await
}

/// The Node.js server would answer the probe of the second WebSocket.
async fn second_websocket_for_websocket_session_is_closed(peer: &Peer) -> Result<()> {
    let (mut socket, sid) = WebSocket::open_with_sid(peer).await?;
    let query = format!("EIO=4&transport=websocket&sid={sid}");
    WebSocket::expect_rejected(peer, &query).await?;
    socket.expect_pings(1).await
}

async fn second_websocket_during_a_probe_is_closed(peer: &Peer) -> Result<()> {
    let session = Polling::open(peer).await?;
    let mut socket = WebSocket::probe(peer, &session.sid).await?;
    let query = format!("EIO=4&transport=websocket&sid={}", session.sid);
    WebSocket::expect_rejected(peer, &query).await?;
    socket.send("5").await;
    socket.expect_pings(1).await
}

/// Polls for 10 s, which also detects a server without a throttle if the machine is busy.
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
            other => bail!("unexpected {other:?} by polling"),
        }
        if let [.., first, _, _, _, _, _, _, _, _, _, last] = noops[..] {
            let took = last - first;
            ensure!(took >= Duration::from_millis(500), "ten polls got their noop in {took:?}");
        }
    }
    Ok(())
}

async fn websocket_that_does_not_probe_is_closed_and_polling_continues(peer: &Peer) -> Result<()> {
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

async fn upgrade_succeeds_after_an_aborted_one(peer: &Peer) -> Result<()> {
    let session = Polling::open(peer).await?;
    WebSocket::probe(peer, &session.sid).await?.close().await;
    // The server rejects a second probe until it has detected the end of the first WebSocket.
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

/// During a probe, a server may send pending messages by polling or keep them for the WebSocket.
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
