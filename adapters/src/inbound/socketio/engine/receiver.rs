use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::handler::EngineMessage;
use super::packet::EnginePacket;
use super::polling::{PollingInput, PollingSession, PostedPackets};
use super::session_end::SessionEnd;
use crate::outbound::socketio::PacketSender;
use crate::transport::{Frame, ReadError, WebSocketReader};

/// The source of a session's packets.
pub(super) enum Receiver {
    WebSocket(WebSocketReader),
    Polling(Box<PollingReceiver>),
}

pub(super) struct PollingReceiver {
    session: Arc<PollingSession>,
    /// The packets of the POST request that are being received one after the other.
    packets: Option<PostedPackets>,
}

/// One input from the client.
pub(super) enum Incoming {
    Packet(EnginePacket),
    /// A ping of the WebSocket protocol.
    Ping(Vec<u8>),
    /// A frame that needs no answer.
    Nothing,
}

impl Receiver {
    pub(super) fn polling(session: Arc<PollingSession>) -> Self {
        Self::Polling(Box::new(PollingReceiver { session, packets: None }))
    }

    /// Receives the next input. On a WebSocket, the limit for messages is low at first. When a message exceeds it
    /// after the client has connected to a namespace, the limit is raised to `max_payload`.
    pub(super) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        sender: &PacketSender,
        max_payload: usize,
    ) -> Poll<Result<Incoming, SessionEnd>> {
        loop {
            match self {
                Self::WebSocket(reader) => {
                    let frame = ready!(reader.poll_frame(cx));
                    let is_limit_raised = matches!(frame, Err(ReadError::TooLarge))
                        && sender.is_connected_to_any()
                        && reader.raise_limit(max_payload);
                    if !is_limit_raised {
                        return Poll::Ready(read_frame(frame));
                    }
                }
                Self::Polling(polling) => {
                    if let Some(packet) = polling.packets.as_mut().and_then(PostedPackets::next) {
                        let packet = EnginePacket::read_polled(packet);
                        return Poll::Ready(packet.map(Incoming::Packet).map_err(SessionEnd::from));
                    }
                    match polling.session.take_input() {
                        Some(PollingInput::Packets(packets)) => polling.packets = Some(packets),
                        Some(PollingInput::WebSocket(reader)) => *self = Self::WebSocket(reader),
                        // The next request wakes this task.
                        None => return Poll::Pending,
                    }
                }
            }
        }
    }
}

impl PollingReceiver {
    /// Accepts the POST request in flight once all of its packets have been received.
    pub(super) fn accept_if_exhausted(&mut self) {
        if self.packets.as_ref().is_some_and(PostedPackets::is_exhausted) {
            self.accept();
        }
    }

    /// Accepts the POST request in flight, if there is one.
    pub(super) fn accept(&mut self) {
        if let Some(packets) = self.packets.take() {
            packets.finish();
        }
    }
}

fn read_frame(frame: Result<Frame, ReadError>) -> Result<Incoming, SessionEnd> {
    Ok(match frame? {
        Frame::Text(text) => Incoming::Packet(EnginePacket::read(text)?),
        Frame::Binary(bytes) => {
            Incoming::Packet(EnginePacket::Message(EngineMessage::Binary(bytes)))
        }
        Frame::Ping(payload) => Incoming::Ping(payload),
        Frame::Pong | Frame::Fragment => Incoming::Nothing,
        Frame::Close(code) => return Err(SessionEnd::ClosingHandshake(code)),
    })
}
