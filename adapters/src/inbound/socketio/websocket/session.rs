use std::future::poll_fn;
use std::ops::ControlFlow;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use http::Request;
use tokio::time::{Instant, Sleep, sleep_until};
use tracing::debug;

use super::heartbeat::{Beat, Heartbeat};
use super::packet::{self, ATTACHMENTS, EnginePacket, Event, Kind, Packet};
use super::socket::{NotIn, Opened, Socket};
use crate::inbound::socketio::door::Door;
use crate::inbound::socketio::inflow::OTHER_PACKETS;
use crate::limits::{PerSecond, Rate};
use crate::outbound::socketio::Namespace;
use crate::transport::{FrameReader, Heard, ProtocolSide, Unreadable, close_frame, pong_frame};

/// A longer name of a namespace that there is not is not answered: the answer repeats it.
const LONGEST_PATH: usize = 1_024;

/// A device that comes by a WebSocket, before it is there.
pub(in crate::inbound::socketio) struct Session {
    door: Arc<Door>,
    opening: Opened,
}

impl Session {
    /// The session that this request opens.
    pub(in crate::inbound::socketio) fn opened_by(
        request: &Request<Body>,
        door: Arc<Door>,
    ) -> Self {
        let opening = Opened::by(request, door.settings.token_in_query);
        Self { door, opening }
    }

    /// Speaks with the device until one of them ends it.
    pub(in crate::inbound::socketio) async fn run(self, connection: ProtocolSide) {
        let Self { door, opening } = self;
        let socket = Arc::new(Socket::new(door, connection.only_outlet(), opening));
        Loop::new(connection, socket).run().await;
    }
}

/// What one connection needs while it waits, and nothing else: there are many of them.
struct Loop {
    connection: ProtocolSide,
    frames: FrameReader,
    socket: Arc<Socket>,
    heartbeat: Heartbeat,
    /// By then the device has to be in a namespace.
    connect_by: Option<Instant>,
    /// The packet whose attachments are awaited.
    partial: Option<Box<Partial>>,
    /// Of frames that are no events. Who sends more has the rest wait, and TCP holds it back.
    pace: Rate,
    /// Until then nothing more is read.
    paused: Option<Instant>,
}

/// A packet some of whose attachments are to come.
struct Partial {
    text: Box<str>,
    missing: usize,
    /// So many bytes may still come. They are counted and not kept, as nothing takes them.
    room: usize,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It is gone, or as good as that.
    Gone,
    /// By the closing handshake, with the status that the client gave.
    Close(Option<u16>),
    /// The same after Engine.IO's close packet.
    Goodbye,
}

impl From<NotIn> for End {
    fn from(NotIn: NotIn) -> Self {
        Self::Goodbye
    }
}

enum Step {
    Heard(Result<Heard, Unreadable>),
    Time,
}

impl Loop {
    fn new(connection: ProtocolSide, socket: Arc<Socket>) -> Self {
        let (settings, now) = (socket.door().settings, Instant::now());
        let (interval, timeout) = (settings.ping_interval, settings.ping_timeout);
        Self {
            connection,
            frames: FrameReader::new(settings.max_payload),
            heartbeat: Heartbeat::begin(socket.sid(), interval, timeout, now),
            connect_by: Some(now + settings.connect_timeout),
            partial: None,
            pace: Rate::of(PerSecond::from(OTHER_PACKETS)),
            paused: None,
            socket,
        }
    }

    async fn run(mut self) {
        let open = packet::open(self.socket.sid(), &self.socket.door().settings);
        if self.socket.write(&open).is_err() {
            return;
        }
        let mut timer = pin!(sleep_until(self.due()));
        let end = loop {
            let step = poll_fn(|cx| self.poll_step(cx, timer.as_mut())).await;
            let done = match step {
                Step::Heard(heard) => self.hear(heard),
                Step::Time => self.look_at(Instant::now()),
            };
            if let Err(end) = done {
                break end;
            }
            let due = self.due();
            if timer.deadline() != due {
                timer.as_mut().reset(due);
            }
        };
        self.end(end);
    }

    fn poll_step(&mut self, cx: &mut Context<'_>, timer: Pin<&mut Sleep>) -> Poll<Step> {
        // The time first: who sends without pause has a heartbeat as well.
        if timer.poll(cx).is_ready() {
            return Poll::Ready(Step::Time);
        }
        if self.paused.is_some() {
            return Poll::Pending;
        }
        self.frames.poll_next(cx, &mut self.connection).map(Step::Heard)
    }

    /// When there is something to do though nothing comes.
    fn due(&self) -> Instant {
        let others = [self.connect_by, self.paused].into_iter().flatten();
        others.fold(self.heartbeat.due(), Instant::min)
    }

    fn look_at(&mut self, now: Instant) -> Result<(), End> {
        if self.paused.take_if(|until| *until <= now).is_some() {
            // The one that was too many, which is within the rate now.
            self.count_other(now);
        }
        if self.connect_by.take_if(|by| *by <= now).is_some() && self.socket.is_out() {
            return Err(End::Goodbye);
        }
        match self.heartbeat.beat(now) {
            Beat::Wait => Ok(()),
            // One that does not even take a ping reads nothing.
            Beat::Ping => self.socket.write(&packet::ping()).map_err(|_| End::Gone),
            Beat::Dead => Err(End::Close(None)),
        }
    }

    fn hear(&mut self, heard: Result<Heard, Unreadable>) -> Result<(), End> {
        let heard = heard.map_err(|unreadable| match unreadable {
            Unreadable::Gone | Unreadable::Broken(_) => End::Gone,
            Unreadable::Violation(_) | Unreadable::TooLarge => {
                debug!(%unreadable, "a WebSocket is closed");
                End::Close(None)
            }
        })?;
        // It was sent away, and is still sending.
        let goes_on = if self.connection.has_said_last() {
            ControlFlow::Continue(())
        } else {
            self.take(heard)?
        };
        if goes_on.is_continue() {
            self.count_other(Instant::now());
        }
        Ok(())
    }

    /// One more frame that is no event.
    fn count_other(&mut self, now: Instant) {
        if let Err(exceeded) = self.pace.take() {
            self.paused = Some(now + exceeded.wait);
        }
    }

    /// Goes on where what was heard does not count as an event, which has a rate of its own.
    fn take(&mut self, heard: Heard) -> Result<ControlFlow<()>, End> {
        match heard {
            Heard::Text(text) => return self.read(&text),
            Heard::Binary(bytes) => return self.attach(bytes.len()),
            // A device that does not read need not be answered.
            Heard::Ping(payload) => drop(self.socket.write(&pong_frame(&payload))),
            Heard::Pong | Heard::Fragment => {}
            Heard::Close(status) => return Err(End::Close(status)),
        }
        Ok(ControlFlow::Continue(()))
    }

    fn read(&mut self, text: &str) -> Result<ControlFlow<()>, End> {
        match EnginePacket::read(text) {
            None | Some(EnginePacket::Close) => Err(End::Close(None)),
            Some(EnginePacket::PingOrPong) => {
                self.heartbeat.heard();
                Ok(ControlFlow::Continue(()))
            }
            Some(EnginePacket::Message(message)) => {
                let packet = Packet::read(message).filter(|_| self.partial.is_none());
                let packet = packet.ok_or(End::Goodbye)?;
                match packet.attachments {
                    0 => self.dispatch(packet),
                    missing @ 1..=ATTACHMENTS => {
                        let room = self.socket.door().settings.max_payload;
                        let text = message.into();
                        self.partial = Some(Box::new(Partial { text, missing, room }));
                        Ok(ControlFlow::Continue(()))
                    }
                    _ => Err(End::Goodbye),
                }
            }
        }
    }

    /// One of the attachments that a packet has announced.
    fn attach(&mut self, length: usize) -> Result<ControlFlow<()>, End> {
        let mut partial = self.partial.take().ok_or(End::Goodbye)?;
        partial.room = partial.room.checked_sub(length).ok_or(End::Goodbye)?;
        partial.missing -= 1;
        if partial.missing > 0 {
            self.partial = Some(partial);
            return Ok(ControlFlow::Continue(()));
        }
        self.dispatch(Packet::read(&partial.text).ok_or(End::Goodbye)?)
    }

    fn dispatch(&mut self, packet: Packet<'_>) -> Result<ControlFlow<()>, End> {
        let Packet { kind, namespace: path, ack, json, .. } = packet;
        let Some(namespace) = Namespace::of(path) else {
            if kind == Kind::Connect && path.len() <= LONGEST_PATH {
                let _ = self.socket.write(&packet::invalid_namespace(path));
            }
            return Ok(ControlFlow::Continue(()));
        };
        match kind {
            Kind::Connect => self.socket.enter(namespace, json),
            Kind::Disconnect => {
                self.socket.leave(namespace)?;
                // It may come to another, or again. It has as long for that as in the beginning.
                if self.socket.is_out() {
                    let patience = self.socket.door().settings.connect_timeout;
                    self.connect_by = Some(Instant::now() + patience);
                }
            }
            Kind::Ack => self.socket.acknowledged(namespace)?,
            Kind::Event => {
                let event = Event::read(json).ok_or(End::Goodbye)?;
                self.socket.answer(namespace, ack, event)?;
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn end(self, end: End) {
        let goodbye = (end == End::Goodbye).then(packet::close);
        let close = match end {
            End::Gone => None,
            End::Close(status) => Some(close_frame(status)),
            End::Goodbye => Some(close_frame(None)),
        };
        for frame in [goodbye, close].into_iter().flatten() {
            // Said as far as it is taken at once: nobody waits for a device that ends.
            let _ = self.socket.write(&frame);
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        self.socket.leave_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_waited_for_costs_little() {
        // With the timer, that is what a connection's task is made of.
        let all = size_of::<Loop>() + size_of::<Sleep>();
        assert!(all <= 400, "{all}");
        assert!(size_of::<Socket>() <= 256, "{}", size_of::<Socket>());
    }
}
