//! The task of one session.

use std::num::NonZeroU32;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep_until};

use super::closing::{close_polling, close_websocket};
use super::handler::{EngineHandler, Received};
use super::heartbeat::{Beat, Heartbeat, HeartbeatSchedule};
use super::packet::EnginePacket;
use super::polling::Registration;
use super::receiver::{Incoming, Receiver};
use super::session_end::SessionEnd;
use crate::limits::{PerSecond, Rate};
use crate::outbound::socketio::{PacketSender, SessionPhase};
use crate::transport::{EnqueueError, pong_frame};

/// The rate limit for packets other than events (CONNECTs, pings, pongs, acknowledgements, fragments), in packets a
/// second. A client needs only a few. Packets above the rate are received later: TCP, or the delayed response to a
/// POST request, slows the client down.
const CONTROL_PACKETS: NonZeroU32 = NonZeroU32::new(200).unwrap();

/// Engine.IO's ping packet, as a WebSocket frame.
static PING: Bytes = Bytes::from_static(b"\x81\x012");

/// The state of one session. It is kept small, because there are many idle sessions.
pub(super) struct EngineSession<H> {
    receiver: Receiver,
    sender: Arc<PacketSender>,
    handler: H,
    heartbeat: Heartbeat,
    max_payload: usize,
    /// How many bytes were queued when the last ping was sent, or when [`is_reading`](Self::is_reading) last compared.
    queued_at_ping: usize,
    control_rate: Rate,
    /// Nothing is received until this time, because the client exceeded the rate of control packets.
    paused_until: Option<Instant>,
    /// Set if the session was opened by polling.
    registration: Option<Box<Registration>>,
}

/// The next thing that a session has to process.
enum Step {
    Received(Result<Incoming, SessionEnd>),
    Timer,
    End(SessionEnd),
}

impl<H: EngineHandler> EngineSession<H> {
    pub(super) fn new(
        receiver: Receiver,
        sender: Arc<PacketSender>,
        handler: H,
        heartbeats: Arc<HeartbeatSchedule>,
        max_payload: usize,
        registration: Option<Registration>,
    ) -> Self {
        Self {
            receiver,
            sender,
            handler,
            heartbeat: Heartbeat::start(heartbeats, Instant::now()),
            max_payload,
            queued_at_ping: 0,
            control_rate: Rate::of(PerSecond::from(CONTROL_PACKETS)),
            paused_until: None,
            registration: registration.map(Box::new),
        }
    }

    /// Runs the session until either side ends it.
    ///
    /// Most of the memory of an idle client is this future, so the future must contain the session only once. An
    /// `async fn` would contain a second copy, for its argument. Without the box, `finish` would add another copy.
    #[expect(clippy::manual_async_fn, reason = "an async fn would take twice the memory")]
    pub(super) fn run(mut self) -> impl Future<Output = ()> {
        async move {
            let end = self.run_until_end().await;
            Box::pin(self.finish(end)).await;
        }
    }

    async fn run_until_end(&mut self) -> SessionEnd {
        let mut timer = pin!(sleep_until(self.due()));
        loop {
            let step = std::future::poll_fn(|cx| self.poll_step(cx, timer.as_mut())).await;
            let outcome = match step {
                Step::Received(incoming) => self.process(incoming),
                Step::Timer => self.on_timer(Instant::now()),
                Step::End(end) => Err(end),
            };
            if let Err(end) = outcome {
                return end;
            }
            let due = self.due();
            if timer.deadline() != due {
                timer.as_mut().reset(due);
            }
        }
    }

    fn poll_step(&mut self, cx: &mut Context<'_>, timer: Pin<&mut Sleep>) -> Poll<Step> {
        self.sender.register_task(cx);
        match self.sender.phase() {
            SessionPhase::Open => {}
            SessionPhase::Closing => return Poll::Ready(Step::End(SessionEnd::ByServer)),
            SessionPhase::Aborted => return Poll::Ready(Step::End(SessionEnd::Gone)),
        }
        // The timer comes before receiving, so that a client which sends without pause does not escape the heartbeat.
        if timer.poll(cx).is_ready() {
            return Poll::Ready(Step::Timer);
        }
        if self.paused_until.is_some() {
            return Poll::Pending;
        }
        ready!(self.handler.poll_ready(cx));
        ready!(self.sender.poll_no_backlog(cx));
        self.receiver.poll_next(cx, &self.sender, self.max_payload).map(Step::Received)
    }

    /// When [`on_timer`](Self::on_timer) must be called.
    fn due(&self) -> Instant {
        let other_times = [self.handler.deadline(), self.paused_until].into_iter().flatten();
        other_times.fold(self.heartbeat.due(), Instant::min)
    }

    fn on_timer(&mut self, now: Instant) -> Result<(), SessionEnd> {
        if self.paused_until.take_if(|until| *until <= now).is_some() {
            // The packet that exceeded the rate was not counted at that time.
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

    fn ping(&mut self) -> Result<(), SessionEnd> {
        self.queued_at_ping = self.sender.queued_bytes();
        match self.sender.send(&PING) {
            Ok(()) => Ok(()),
            // The session is being closed; the next step detects that.
            Err(EnqueueError::Closed) if self.sender.phase() != SessionPhase::Open => Ok(()),
            // A client whose queue has no room even for a ping does not read.
            Err(EnqueueError::Full | EnqueueError::Closed) => Err(self.timed_out()),
        }
    }

    /// Whether a client with a backlog has read some of it since the last ping or the last call. The client reads the
    /// ping only after the backlog, which takes long on a slow network.
    fn is_reading(&mut self) -> bool {
        let queued = self.sender.queued_bytes();
        let before = std::mem::replace(&mut self.queued_at_ping, queued);
        0 < queued && queued < before
    }

    fn timed_out(&self) -> SessionEnd {
        let has_backlog = self.sender.has_backlog();
        self.handler.on_ping_timeout(has_backlog);
        if has_backlog { SessionEnd::Gone } else { SessionEnd::PingTimeout }
    }

    fn process(&mut self, incoming: Result<Incoming, SessionEnd>) -> Result<(), SessionEnd> {
        self.receive(incoming?)?;
        // The POST request is accepted even if the client has a backlog now. Some clients poll only after the response.
        if let Receiver::Polling(polling) = &mut self.receiver {
            polling.accept_if_exhausted();
        }
        Ok(())
    }

    fn receive(&mut self, incoming: Incoming) -> Result<(), SessionEnd> {
        let received = match incoming {
            Incoming::Packet(EnginePacket::Message(message)) => self.handler.receive(message)?,
            Incoming::Packet(EnginePacket::PingOrPong) => {
                self.heartbeat.answered();
                Received::Control
            }
            Incoming::Packet(EnginePacket::Close) => return Err(SessionEnd::ByClient),
            // These are allowed only on a WebSocket whose upgrade is not complete.
            Incoming::Packet(EnginePacket::Probe | EnginePacket::Upgrade) => {
                return Err(SessionEnd::Violation);
            }
            Incoming::Ping(payload) => {
                // A client that does not read needs no pong.
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

    async fn finish(self, end: SessionEnd) {
        let Self { receiver, sender, handler, registration, .. } = self;
        // Dropping the handler first removes the session from the rest of the server. Closing the transport takes time.
        drop(handler);
        match receiver {
            Receiver::WebSocket(reader) => close_websocket(reader, &sender, &end).await,
            Receiver::Polling(polling) => close_polling(polling, &sender, &end).await,
        }
        sender.end();
        drop(registration);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbound::socketio::connect_handler::ConnectHandler;
    use crate::inbound::socketio::protocol::SocketIoConnection;
    use crate::transport::text_frame;

    #[test]
    fn ping_is_a_text_frame() {
        assert_eq!(PING, text_frame(&["2"]));
    }

    #[test]
    fn idle_session_is_small() {
        fn size_of_output<T, F>(_: fn(T) -> F) -> usize {
            size_of::<F>()
        }
        let size = size_of_output(EngineSession::<SocketIoConnection<ConnectHandler>>::run);
        assert!(size <= 560, "an idle session needs {size} bytes");
    }
}
