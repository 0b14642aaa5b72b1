//! Closes a session's transport in the way that the client expects.

use std::task::{Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::receiver::PollingReceiver;
use super::session_end::SessionEnd;
use crate::outbound::socketio::PacketSender;
use crate::transport::{WebSocketReader, close_frame, text_frame};

/// How long a client may take to read queued packets before its transport is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a transport stays open after the last packets were sent. During this time, data that a WebSocket client
/// still sends is read and discarded: closing a connection with unread bytes resets it, and the client would lose the
/// last packets. A polling client has this time to repeat its last poll.
const LINGER: Duration = Duration::from_secs(1);

/// A WebSocket is closed early once this many bytes have been discarded.
const LINGER_BYTES: usize = 4 * 1024 * 1024;

pub(super) async fn close_websocket(
    reader: WebSocketReader,
    sender: &PacketSender,
    end: &SessionEnd,
) {
    let frames: &[Bytes] = match end {
        SessionEnd::Gone => return,
        SessionEnd::ByServer => &[],
        SessionEnd::ByClient | SessionEnd::PingTimeout => &[close_frame(None)],
        SessionEnd::ClosingHandshake(code) => &[close_frame(*code)],
        SessionEnd::WebSocketError(code) => &[close_frame(Some(*code))],
        // `1` is the close packet of Engine.IO.
        SessionEnd::Violation => &[text_frame(&["1"]), close_frame(None)],
    };
    for frame in frames {
        // If the queue is full, the client only sees the connection close.
        let _ = sender.send(frame);
    }
    sender.close();
    let mut budget = LINGER_BYTES;
    // All packets are written, or the client is gone or has sent too much.
    let finished = std::future::poll_fn(|cx| {
        let is_discard_over = reader.poll_discard(cx, &mut budget).is_ready();
        if is_discard_over { Poll::Ready(()) } else { sender.poll_finished(cx) }
    });
    let _ = timeout(CLOSE_TIMEOUT, finished).await;
    let closed_by_client = std::future::poll_fn(|cx| {
        ready!(reader.poll_shutdown(cx));
        reader.poll_discard(cx, &mut budget)
    });
    let _ = timeout(LINGER, closed_by_client).await;
}

pub(super) async fn close_polling(
    mut polling: Box<PollingReceiver>,
    sender: &PacketSender,
    end: &SessionEnd,
) {
    match end {
        SessionEnd::ByClient => polling.accept(),
        SessionEnd::ByServer => {
            polling.accept();
            let fetched = std::future::poll_fn(|cx| sender.poll_finished(cx));
            if timeout(CLOSE_TIMEOUT, fetched).await.is_ok() {
                tokio::time::sleep(LINGER).await;
            }
        }
        // Dropping the receiver rejects a POST request in flight.
        _ => {}
    }
}
