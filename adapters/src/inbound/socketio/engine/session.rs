//! The task of one session.

use std::num::NonZeroU32;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tracing::debug;

use super::heartbeat::{Beat, Heartbeat};
use super::packet::{EnginePacket, Message};
use super::polling::{Delivery, PollingSession, PostedPackets, Registration};
use super::{EngineSettings, Handler, Received, Violation};
use crate::limits::{Limit, PerSecond, Rate};
use crate::outbound::socketio::{PacketSender, SessionPhase};
use crate::transport::{
    Frame, NotSent, ReadError, WebSocketReader, close_frame, pong_frame, text_frame,
};

/// Packets a second other than events: CONNECTs, pings, pongs, acknowledgements, fragments. No client needs more
/// than a few. What exceeds the rate is received later; TCP, or the response to a request, holds the client back.
const CONTROL_PACKETS: NonZeroU32 = NonZeroU32::new(200).unwrap();

/// How long a client may take to read what is queued for it before its transport is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long, and for how many bytes, a transport is kept open for a client that is still sending, so that it
/// gets to read what was sent to it last. A polling client may repeat its last poll in that time.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 4 * 1024 * 1024;

/// What one session needs while it waits, and nothing else: there are many of them.
pub(super) struct Session<H> {
    receiver: Receiver,
    sender: Arc<PacketSender>,
    handler: H,
    heartbeat: Heartbeat,
    /// How many bytes were queued when the client was last expected to read them.
    queued_at_ping: usize,
    control_rate: Rate,
    /// Until then nothing is received.
    paused_until: Option<Instant>,
    /// Of a session that polls, or has begun so.
    registration: Option<Box<Registration>>,
}

/// Where packets come from.
pub(super) enum Receiver {
    WebSocket(WebSocketReader),
    Polling(Box<PollingReceiver>),
}

pub(super) struct PollingReceiver {
    session: Arc<PollingSession>,
    /// Those that are being received.
    packets: Option<PostedPackets>,
}

/// One thing received.
enum Incoming {
    Packet(EnginePacket),
    /// A ping of the WebSocket protocol.
    Ping(Vec<u8>),
    /// A frame that needs no answer.
    Nothing,
}

/// Why a session ends.
#[derive(Debug)]
enum End {
    /// The connection is gone, or is to be closed without another word.
    Gone,
    /// The server closes the transport after what is queued has been sent.
    ByServer,
    /// The client closes the session.
    ByClient,
    /// The client closes the WebSocket, with a status code or without.
    ClosingHandshake(Option<u16>),
    /// The client violates the WebSocket protocol; the status code says how.
    WebSocketError(u16),
    /// The client violates Engine.IO, or what is spoken on top of it.
    Violation,
    PingTimeout,
}

impl From<Violation> for End {
    fn from(Violation: Violation) -> Self {
        Self::Violation
    }
}

impl From<ReadError> for End {
    fn from(error: ReadError) -> Self {
        match error.close_code() {
            Some(code) => {
                debug!(%error, code, "WebSocket closed");
                if matches!(error, ReadError::TooLarge) {
                    Limit::Payload.record_exceeded();
                }
                Self::WebSocketError(code)
            }
            None => Self::Gone,
        }
    }
}

enum Step {
    Received(Result<Incoming, End>),
    Timer,
    End(End),
}

impl Receiver {
    pub(super) fn polling(session: Arc<PollingSession>) -> Self {
        Self::Polling(Box::new(PollingReceiver { session, packets: None }))
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Incoming, End>> {
        loop {
            match self {
                Self::WebSocket(reader) => {
                    return Poll::Ready(read_frame(ready!(reader.poll_frame(cx))));
                }
                Self::Polling(polling) => {
                    if let Some(packet) = polling.packets.as_mut().and_then(PostedPackets::next) {
                        let packet = EnginePacket::read_polled(packet);
                        return Poll::Ready(packet.map(Incoming::Packet).map_err(End::from));
                    }
                    match polling.session.take_delivery() {
                        Some(Delivery::Packets(packets)) => polling.packets = Some(packets),
                        Some(Delivery::WebSocket(reader)) => *self = Self::WebSocket(reader),
                        // The request that brings something wakes this task.
                        None => return Poll::Pending,
                    }
                }
            }
        }
    }
}

impl PollingReceiver {
    fn accept_if_exhausted(&mut self) {
        if self.packets.as_ref().is_some_and(PostedPackets::is_exhausted) {
            self.accept();
        }
    }

    /// Has the request under way answered, as all of it was received.
    fn accept(&mut self) {
        if let Some(packets) = self.packets.take() {
            packets.finish();
        }
    }
}

fn read_frame(frame: Result<Frame, ReadError>) -> Result<Incoming, End> {
    Ok(match frame? {
        Frame::Text(text) => Incoming::Packet(EnginePacket::read(text)?),
        Frame::Binary(bytes) => Incoming::Packet(EnginePacket::Message(Message::Binary(bytes))),
        Frame::Ping(payload) => Incoming::Ping(payload),
        Frame::Pong | Frame::Fragment => Incoming::Nothing,
        Frame::Close(code) => return Err(End::ClosingHandshake(code)),
    })
}

impl<H: Handler> Session<H> {
    pub(super) fn new(
        receiver: Receiver,
        sender: Arc<PacketSender>,
        handler: H,
        settings: &EngineSettings,
        registration: Option<Registration>,
    ) -> Self {
        let EngineSettings { ping_interval, ping_timeout, .. } = *settings;
        Self {
            receiver,
            sender,
            handler,
            heartbeat: Heartbeat::start(ping_interval, ping_timeout, Instant::now()),
            queued_at_ping: 0,
            control_rate: Rate::of(PerSecond::from(CONTROL_PACKETS)),
            paused_until: None,
            registration: registration.map(Box::new),
        }
    }

    /// Runs the session until either side ends it.
    pub(super) async fn run(mut self) {
        let end = {
            let mut timer = pin!(sleep_until(self.due()));
            loop {
                let step = std::future::poll_fn(|cx| self.poll_step(cx, timer.as_mut())).await;
                let outcome = match step {
                    Step::Received(incoming) => self.process(incoming),
                    Step::Timer => self.on_timer(Instant::now()),
                    Step::End(end) => Err(end),
                };
                if let Err(end) = outcome {
                    break end;
                }
                let due = self.due();
                if timer.deadline() != due {
                    timer.as_mut().reset(due);
                }
            }
        };
        self.finish(end).await;
    }

    fn poll_step(&mut self, cx: &mut Context<'_>, timer: Pin<&mut Sleep>) -> Poll<Step> {
        self.sender.register_task(cx);
        match self.sender.phase() {
            SessionPhase::Open => {}
            SessionPhase::Closing => return Poll::Ready(Step::End(End::ByServer)),
            SessionPhase::Aborted => return Poll::Ready(Step::End(End::Gone)),
        }
        // Before anything is received: a client that sends without pause has a heartbeat as well.
        if timer.poll(cx).is_ready() {
            return Poll::Ready(Step::Timer);
        }
        if self.paused_until.is_some() {
            return Poll::Pending;
        }
        ready!(self.handler.poll_ready(cx));
        ready!(self.sender.poll_no_backlog(cx));
        self.receiver.poll_next(cx).map(Step::Received)
    }

    /// When there is something to do although nothing is received.
    fn due(&self) -> Instant {
        let others = [self.handler.deadline(), self.paused_until].into_iter().flatten();
        others.fold(self.heartbeat.due(), Instant::min)
    }

    fn on_timer(&mut self, now: Instant) -> Result<(), End> {
        if self.paused_until.take_if(|until| *until <= now).is_some() {
            self.count_control_packet(now);
        }
        if self.handler.deadline().is_some_and(|deadline| deadline <= now) {
            self.handler.on_deadline()?;
        }
        match self.heartbeat.beat(now) {
            Beat::Wait => Ok(()),
            Beat::Ping => self.ping(),
            Beat::TimedOut if self.is_reading() => {
                self.heartbeat.extend(now);
                Ok(())
            }
            Beat::TimedOut => Err(self.timed_out()),
        }
    }

    fn ping(&mut self) -> Result<(), End> {
        self.queued_at_ping = self.sender.queued_bytes();
        match self.sender.send(&text_frame(&["2"])) {
            Ok(()) => Ok(()),
            // The session is being closed, which this task finds out next.
            Err(NotSent::Closed) if self.sender.phase() != SessionPhase::Open => Ok(()),
            // A client whose queue has no room even for a ping does not read.
            Err(NotSent::Full | NotSent::Closed) => Err(self.timed_out()),
        }
    }

    /// Whether a client with a backlog has read some of it since the last ping. Its pong is not read before it has
    /// read all of it, which takes long on a slow network.
    fn is_reading(&mut self) -> bool {
        let queued = self.sender.queued_bytes();
        let before = std::mem::replace(&mut self.queued_at_ping, queued);
        0 < queued && queued < before
    }

    fn timed_out(&self) -> End {
        let has_backlog = self.sender.has_backlog();
        self.handler.on_ping_timeout(has_backlog);
        if has_backlog { End::Gone } else { End::PingTimeout }
    }

    fn process(&mut self, incoming: Result<Incoming, End>) -> Result<(), End> {
        self.receive(incoming?)?;
        // The request is answered although the client may have a backlog by now: it may poll only afterwards.
        if let Receiver::Polling(polling) = &mut self.receiver {
            polling.accept_if_exhausted();
        }
        Ok(())
    }

    fn receive(&mut self, incoming: Incoming) -> Result<(), End> {
        let received = match incoming {
            Incoming::Packet(EnginePacket::Message(message)) => self.handler.receive(message)?,
            Incoming::Packet(EnginePacket::PingOrPong) => {
                self.heartbeat.answered();
                Received::Control
            }
            Incoming::Packet(EnginePacket::Close) => return Err(End::ByClient),
            // Both belong to the WebSocket that a session upgrades to, before it is one.
            Incoming::Packet(EnginePacket::Probe | EnginePacket::Upgrade) => {
                return Err(End::Violation);
            }
            Incoming::Ping(payload) => {
                // A client that does not read need not be answered.
                let _ = self.sender.send(&pong_frame(&payload));
                Received::Control
            }
            Incoming::Nothing => Received::Control,
        };
        if received == Received::Control {
            self.count_control_packet(Instant::now());
        }
        Ok(())
    }

    fn count_control_packet(&mut self, now: Instant) {
        if let Err(exceeded) = self.control_rate.take() {
            self.paused_until = Some(now + exceeded.wait);
        }
    }

    /// Closes the transport in the way that the client understands.
    async fn finish(self, end: End) {
        let Self { receiver, sender, handler, registration, .. } = self;
        // What is left of the session in the rest of the server goes first.
        drop(handler);
        match receiver {
            Receiver::WebSocket(reader) => finish_websocket(reader, &sender, &end).await,
            Receiver::Polling(polling) => finish_polling(polling, &sender, &end).await,
        }
        sender.end();
        drop(registration);
    }
}

async fn finish_websocket(reader: WebSocketReader, sender: &PacketSender, end: &End) {
    let frames: &[Bytes] = match end {
        End::Gone => return,
        End::ByServer => &[],
        End::ByClient | End::PingTimeout => &[close_frame(None)],
        End::ClosingHandshake(code) => &[close_frame(*code)],
        End::WebSocketError(code) => &[close_frame(Some(*code))],
        End::Violation => &[text_frame(&["1"]), close_frame(None)],
    };
    for frame in frames {
        // Where the client does not take it, it finds the connection closed.
        let _ = sender.send(frame);
    }
    sender.close();
    let mut budget = LINGER_BYTES;
    let written = std::future::poll_fn(|cx| {
        let is_over = reader.poll_discard(cx, &mut budget).is_ready();
        if is_over { Poll::Ready(()) } else { sender.poll_finished(cx) }
    });
    let _ = timeout(CLOSE_TIMEOUT, written).await;
    let read = std::future::poll_fn(|cx| {
        ready!(reader.poll_shutdown(cx));
        reader.poll_discard(cx, &mut budget)
    });
    let _ = timeout(LINGER, read).await;
}

async fn finish_polling(mut polling: Box<PollingReceiver>, sender: &PacketSender, end: &End) {
    match end {
        End::ByClient => polling.accept(),
        End::ByServer => {
            polling.accept();
            let fetched = std::future::poll_fn(|cx| sender.poll_finished(cx));
            if timeout(CLOSE_TIMEOUT, fetched).await.is_ok() {
                tokio::time::sleep(LINGER).await;
            }
        }
        // A request under way is refused as it is dropped.
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_that_waits_costs_little() {
        // With the timer and the handler, that is what the task of a session is made of.
        let all = size_of::<Session<()>>() + size_of::<Sleep>();
        assert!(all <= 352, "{all}");
    }
}
