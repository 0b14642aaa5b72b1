//! Upgrades a polling session to a WebSocket (Engine.IO protocol, "Upgrade").
//!
//! The client opens the WebSocket while it continues to poll. It probes the WebSocket with the packet `2probe`, and
//! completes the upgrade with the packet `5`. Until then the session uses polling, so that it survives an upgrade that
//! fails, for example because a proxy blocks WebSockets.

use std::sync::Arc;

use super::packet::EnginePacket;
use super::polling::PollingSession;
use super::settings::EngineSettings;
use crate::transport::{
    Frame, FrameWriter, OpeningHandshake, SendLimits, WebSocketReader, close_frame, pong_frame,
    text_frame,
};

/// The maximum number of frames before the upgrade is complete. Two are needed for the packets; proxies may add pings.
const MAX_FRAMES: usize = 16;

/// An unexpected frame arrived, or the client is gone.
struct UpgradeFailed;

/// Serves the WebSocket that a client opens for a session, until the session uses it or the upgrade fails.
pub(super) async fn serve(
    session: Arc<PollingSession>,
    opening: OpeningHandshake,
    settings: &EngineSettings,
) {
    // The protocol requires that a second WebSocket for the same session is accepted and then closed.
    let is_first = session.begin_upgrade();
    let accepted = opening.accept(settings.first_payload()).await;
    if !is_first {
        if let Some((writer, _reader)) = &accepted {
            close(writer);
        }
        return;
    }
    let Some((writer, mut reader)) = accepted else { return session.cancel_upgrade() };
    let probe = probe(&session, &writer, &mut reader);
    if let Ok(Ok(())) = tokio::time::timeout(settings.upgrade_timeout, probe).await {
        session.finish_upgrade(&writer, reader);
    } else {
        session.cancel_upgrade();
        close(&writer);
    }
}

/// Answers the client's probe, and waits for the packet that completes the upgrade.
async fn probe(
    session: &PollingSession,
    writer: &FrameWriter,
    reader: &mut WebSocketReader,
) -> Result<(), UpgradeFailed> {
    let mut is_probed = false;
    for _ in 0..MAX_FRAMES {
        match std::future::poll_fn(|cx| reader.poll_frame(cx)).await {
            Ok(Frame::Text(text)) => match EnginePacket::read(text) {
                Ok(EnginePacket::Probe) if !is_probed => {
                    is_probed = true;
                    // This ends the waiting poll. It precedes the reply because the client, once it has the reply,
                    // waits for the end of its poll.
                    session.probed();
                    send(writer, &text_frame(&["3probe"]))?;
                }
                Ok(EnginePacket::Upgrade) if is_probed => return Ok(()),
                _ => return Err(UpgradeFailed),
            },
            Ok(Frame::Ping(payload)) => send(writer, &pong_frame(&payload))?,
            Ok(Frame::Pong | Frame::Fragment) => {}
            Ok(Frame::Binary(_) | Frame::Close(_)) | Err(_) => return Err(UpgradeFailed),
        }
    }
    Err(UpgradeFailed)
}

fn send(writer: &FrameWriter, frame: &bytes::Bytes) -> Result<(), UpgradeFailed> {
    writer.write([frame].into_iter(), SendLimits::UNLIMITED).map_err(|_| UpgradeFailed)
}

fn close(writer: &FrameWriter) {
    // An error means that the client is gone.
    let _ = send(writer, &close_frame(None));
}
