//! A session that polls goes on over a WebSocket (Engine.IO protocol, "Upgrade").
//!
//! The client opens the WebSocket beside its polls, probes it, and says by `5` that it uses nothing else from
//! now on. Until then the session polls as before, so that an upgrade which a proxy refuses, cuts or swallows
//! costs nothing but the attempt.

use std::sync::Arc;

use super::EngineSettings;
use super::packet::EnginePacket;
use super::polling::PollingSession;
use crate::transport::{
    Frame, FrameWriter, Opening, SendLimits, WebSocketReader, close_frame, pong_frame, text_frame,
};

/// Frames that may come before the upgrade is complete: two packets, and a few pings of proxies.
const MAX_FRAMES: usize = 16;

/// The upgrade failed: an unexpected frame arrived, or the client is gone.
struct Failed;

/// Serves the WebSocket that a client opens for a session, until the session uses it or the upgrade has failed.
pub(super) async fn serve(
    session: Arc<PollingSession>,
    opening: Opening,
    settings: &EngineSettings,
) {
    // A second WebSocket for the same session is closed once it is open, as the protocol demands.
    let is_first = session.begin_upgrade();
    let accepted = opening.accept(settings.max_payload).await;
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
) -> Result<(), Failed> {
    let mut is_probed = false;
    for _ in 0..MAX_FRAMES {
        match std::future::poll_fn(|cx| reader.poll_frame(cx)).await {
            Ok(Frame::Text(text)) => match EnginePacket::read(text) {
                Ok(EnginePacket::Probe) if !is_probed => {
                    is_probed = true;
                    // Before the reply: its last poll must end once the client knows that the probe succeeded.
                    session.probed();
                    send(writer, &text_frame(&["3probe"]))?;
                }
                Ok(EnginePacket::Upgrade) if is_probed => return Ok(()),
                _ => return Err(Failed),
            },
            Ok(Frame::Ping(payload)) => send(writer, &pong_frame(&payload))?,
            Ok(Frame::Pong | Frame::Fragment) => {}
            Ok(Frame::Binary(_) | Frame::Close(_)) | Err(_) => return Err(Failed),
        }
    }
    Err(Failed)
}

fn send(writer: &FrameWriter, frame: &bytes::Bytes) -> Result<(), Failed> {
    writer.write([frame].into_iter(), SendLimits::UNLIMITED).map_err(|_| Failed)
}

fn close(writer: &FrameWriter) {
    // A client that is gone needs no goodbye.
    let _ = send(writer, &close_frame(None));
}
