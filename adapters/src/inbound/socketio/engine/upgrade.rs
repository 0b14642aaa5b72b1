//! Upgrades a polling session to a WebSocket (Engine.IO protocol, "Upgrade").
//!
//! The client opens the WebSocket beside its polls, probes it, and completes the upgrade with the packet `5`. Until
//! then the session polls as before, so that an upgrade which a proxy rejects, cuts or swallows does no harm.

use std::sync::Arc;

use super::packet::EnginePacket;
use super::polling::PollingSession;
use super::settings::EngineSettings;
use crate::transport::{
    Frame, FrameWriter, OpeningHandshake, SendLimits, WebSocketReader, close_frame, pong_frame,
    text_frame,
};

/// The maximum number of frames before the upgrade is complete: two packets, and a few pings of proxies.
const MAX_FRAMES: usize = 16;

/// An unexpected frame arrived, or the client is gone.
struct UpgradeFailed;

/// Serves the WebSocket that a client opens for a session, until the session uses it or the upgrade fails.
pub(super) async fn serve(
    session: Arc<PollingSession>,
    opening: OpeningHandshake,
    settings: &EngineSettings,
) {
    // The protocol demands that a second WebSocket for the same session is closed after it was opened.
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
                    // Before the reply, because the client's last poll must end after a successful probe.
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
