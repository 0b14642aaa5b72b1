//! Pings (`2`) of the server and pongs (`3`) of the client.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::{sleep, timeout};

use super::super::client::{Frame, PATIENCE, Polling, WebSocket};
use super::super::peer::{Case, Peer, Timers, cases};

pub(super) fn transport_cases() -> Vec<Case> {
    let mut all = cases![Timers::LONG;
        pings_are_sent_by_polling,
        pings_are_sent_by_websocket,
        pings_are_sent_by_websocket_after_upgrade,
    ];
    all.extend(cases![Timers::SHORT_PING_TIMEOUT;
        polling_session_without_pong_is_closed,
        websocket_session_without_pong_is_closed,
    ]);
    all
}

async fn pings_are_sent_by_polling(peer: &Peer) -> Result<()> {
    let session = Polling::open(peer).await?;
    for _ in 0..3 {
        session.get().await?.expect_status(200)?.expect_body("2")?;
        session.send("3").await?;
    }
    Ok(())
}

async fn pings_are_sent_by_websocket(peer: &Peer) -> Result<()> {
    WebSocket::open(peer).await?.expect_pings(3).await
}

async fn pings_are_sent_by_websocket_after_upgrade(peer: &Peer) -> Result<()> {
    let (_, mut socket) = WebSocket::upgraded(peer).await?;
    socket.expect_pings(2).await
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
