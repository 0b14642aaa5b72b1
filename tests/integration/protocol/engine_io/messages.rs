//! Messages over both transports. A text message starts with `4`; by polling, `b` starts a binary message in
//! Base64, and `\x1e` separates packets.

use anyhow::{Result, ensure};

use super::super::client::{Polling, WebSocket};
use super::super::peer::{Case, MAX_PAYLOAD, Peer, Timers, cases};

pub(super) fn message_cases() -> Vec<Case> {
    cases![Timers::LONG;
        text_packet_is_carried_by_polling,
        several_packets_are_carried_in_one_payload,
        binary_packet_is_carried_in_base64_by_polling,
        characters_beyond_ascii_are_carried_by_both_transports,
        payload_of_the_maximum_size_is_accepted,
        text_packet_is_carried_by_websocket,
        binary_packet_is_carried_by_websocket,
    ]
}

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

async fn payload_of_the_maximum_size_is_accepted(peer: &Peer) -> Result<()> {
    let session = Polling::open(peer).await?;
    let payload = format!("4{}", "a".repeat(MAX_PAYLOAD - 1));
    session.send(&payload).await?;
    let received = session.receive(1).await?;
    ensure!(received == [payload], "another message was returned");
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
