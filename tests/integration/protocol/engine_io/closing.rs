//! Packets and requests that end a session, and size limits. The first character of a packet is its type: `1`
//! close, `2` ping, `3` pong, `4` message, `6` noop; `\x1e` separates packets.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use belfry_tests::raw_http;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::super::client::{PATIENCE, Polling, WebSocket, with_head_start};
use super::super::peer::{Case, MAX_PAYLOAD, Peer, Timers, cases};

pub(super) fn transport_cases() -> Vec<Case> {
    cases![Timers::LONG;
        posted_close_packet_ends_session,
        close_packet_by_websocket_ends_session,
        invalid_packet_by_polling_closes_session,
        invalid_packet_by_websocket_closes_session,
        post_while_another_is_active_is_rejected_and_closes_session,
        body_that_is_too_large_is_rejected,
        chunked_body_that_is_too_large_is_rejected,
        websocket_message_that_is_too_large_closes_session,
    ]
}

pub(super) fn message_cases() -> Vec<Case> {
    cases![Timers::WITHOUT_PINGS;
        poll_while_another_is_active_is_rejected_and_closes_session,
        poll_that_another_overlaps_is_answered_with_close_packet,
        pending_poll_is_answered_with_noop_when_the_client_closes,
    ]
}

/// The Node.js server also closes the session, but responds with 200.
async fn invalid_packet_by_polling_closes_session(peer: &Peer) -> Result<()> {
    for payload in ["abc", "9", "4fine\x1eabc"] {
        let session = Polling::open(peer).await?;
        match session.post(payload).await {
            Ok(answer) => drop(answer.expect_status(400).context(payload)?),
            // A server may close the connection without a response.
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

/// Sends a POST request without its complete body.
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
    // The first of these POSTs may reach the server before the unfinished one, and are then accepted.
    let rejected = async {
        while session.post("3").await?.status != 400 {
            sleep(Duration::from_millis(50)).await;
        }
        anyhow::Ok(())
    };
    timeout(PATIENCE, rejected).await.context("not rejected")??;
    session.get().await?.expect_status(400)?;
    Ok(())
}

async fn posted_close_packet_ends_session(peer: &Peer) -> Result<()> {
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

/// The Node.js server ignores the packet. In its test suite the session ends because of a missing pong.
async fn close_packet_by_websocket_ends_session(peer: &Peer) -> Result<()> {
    let mut socket = WebSocket::open(peer).await?;
    socket.send("1").await;
    socket.expect_closed().await
}

async fn body_that_is_too_large_is_rejected(peer: &Peer) -> Result<()> {
    let session = Polling::open(peer).await?;
    match session.post(format!("4{}", "a".repeat(MAX_PAYLOAD))).await {
        Ok(answer) => ensure!([400, 413].contains(&answer.status), "{}", answer.status),
        // The server may close the connection before it has read the whole body.
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
    // Each chunk has 0x8000 bytes.
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
