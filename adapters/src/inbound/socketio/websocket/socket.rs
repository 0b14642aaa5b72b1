use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::Request;
use parking_lot::Mutex;
use serde_json::Value;
use socketioxide::socket::Sid;
use tracing::debug;

use super::packet::{self, Event};
use crate::inbound::socketio::admission::Covered;
use crate::inbound::socketio::answer::{Failure, Reply};
use crate::inbound::socketio::door::{Arrival, Door, Knock, Seat, TurnedAway};
use crate::inbound::socketio::handshake::Shown;
use crate::outbound::socketio::{Namespace, SocketIoDevice};
use crate::transport::{ClientAddress, NotTaken, Outlet};

/// One connection, as those have it who do what it asks for.
pub(super) struct Socket {
    door: Arc<Door>,
    outlet: Outlet,
    sid: Sid,
    opening: Opened,
    presence: Mutex<Presence>,
}

/// What is kept of the request that opened a connection.
pub(super) struct Opened {
    from: Option<IpAddr>,
    shown: Shown,
    covered: Covered,
}

/// In which namespaces the device is.
struct Presence {
    namespaces: [Place; Namespace::COUNT as usize],
    /// The connection has ended.
    is_over: bool,
}

enum Place {
    Out,
    /// Being signed in; also for ever after it was refused, as its connection ends.
    Entering,
    In(Arc<Seat>),
}

/// The device says something where it is not.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotIn;

impl Opened {
    pub(super) fn by(request: &Request<Body>, token_in_query: bool) -> Self {
        Self {
            from: ClientAddress::of(request.extensions()),
            shown: Shown::by(request.headers(), request.uri(), token_in_query),
            covered: Covered::by(Namespace::COUNT),
        }
    }
}

impl Socket {
    pub(super) fn new(door: Arc<Door>, outlet: Outlet, opening: Opened) -> Self {
        let namespaces = Namespace::ALL.map(|_| Place::Out);
        let presence = Mutex::new(Presence { namespaces, is_over: false });
        Self { door, outlet, sid: Sid::new(), opening, presence }
    }

    pub(super) fn sid(&self) -> Sid {
        self.sid
    }

    pub(super) fn door(&self) -> &Door {
        &self.door
    }

    pub(super) fn write(&self, frame: &Bytes) -> Result<(), NotTaken> {
        self.outlet.write([frame].into_iter())
    }

    /// Has the device sign in to a namespace, unless it is there already, or on its way.
    pub(super) fn enter(self: &Arc<Self>, namespace: Namespace, auth: &str) {
        {
            let place = &mut self.presence.lock().namespaces[namespace as usize];
            let Place::Out = place else { return };
            *place = Place::Entering;
        }
        // What cannot be read shows nothing.
        let auth = serde_json::from_str(auth).unwrap_or(Value::Null);
        tokio::spawn(self.clone().come_in(namespace, auth));
    }

    async fn come_in(self: Arc<Self>, namespace: Namespace, auth: Value) {
        let Opened { from, shown, covered } = &self.opening;
        let knock = Knock { from: *from, covered: Some(covered), shown, auth: &auth };
        let Arrival { admission, seen } = match self.door.let_in(knock).await {
            Ok(arrival) => arrival,
            Err(TurnedAway::Refused(code)) => {
                return self.outlet.say_last(&packet::connect_error(namespace, code));
            }
            Err(TurnedAway::PutOff(_)) => return self.outlet.hang_up(),
        };
        let Ok(seat) = self.seat(namespace) else { return self.outlet.hang_up() };
        let device = SocketIoDevice::direct(self.outlet.clone(), namespace);
        let session = self.door.sessions.join(admission, device);
        seat.take(&session);
        // It may have left while it joined: whoever saw it leave did not know the session yet.
        if !self.is_in(namespace, &seat) {
            return self.door.sessions.leave(&session);
        }
        debug!(user = %session.user(), namespace = namespace.path(), "device connected");
        self.door.start(&session, seen).await;
    }

    /// Tells the device that it is in, and has it be in: what it says after that is heard.
    fn seat(&self, namespace: Namespace) -> Result<Arc<Seat>, NotTaken> {
        let mut presence = self.presence.lock();
        if presence.is_over {
            return Err(NotTaken::Closed);
        }
        self.write(&packet::connected(namespace, self.sid))?;
        let seat = Arc::new(Seat::new(self.door.settings.messages));
        presence.namespaces[namespace as usize] = Place::In(seat.clone());
        Ok(seat)
    }

    fn is_in(&self, namespace: Namespace, seat: &Arc<Seat>) -> bool {
        let presence = self.presence.lock();
        let place = &presence.namespaces[namespace as usize];
        matches!(place, Place::In(its) if Arc::ptr_eq(its, seat))
    }

    /// The device leaves a namespace, for as long as it likes.
    pub(super) fn leave(&self, namespace: Namespace) -> Result<(), NotIn> {
        let seat = {
            let place = &mut self.presence.lock().namespaces[namespace as usize];
            let Place::In(seat) = place else { return Err(NotIn) };
            let seat = seat.clone();
            *place = Place::Out;
            seat
        };
        self.vacate(&seat);
        Ok(())
    }

    /// The connection has ended.
    pub(super) fn leave_all(&self) {
        let namespaces = {
            let mut presence = self.presence.lock();
            presence.is_over = true;
            std::mem::replace(&mut presence.namespaces, Namespace::ALL.map(|_| Place::Out))
        };
        for place in namespaces {
            if let Place::In(seat) = place {
                self.vacate(&seat);
            }
        }
    }

    fn vacate(&self, seat: &Seat) {
        if let Some(session) = seat.session() {
            self.door.sessions.leave(&session);
        }
    }

    /// Whether the device is in none of the namespaces.
    pub(super) fn is_out(&self) -> bool {
        let presence = self.presence.lock();
        !presence.namespaces.iter().any(|place| matches!(place, Place::In(_)))
    }

    fn seat_in(&self, namespace: Namespace) -> Result<Arc<Seat>, NotIn> {
        match &self.presence.lock().namespaces[namespace as usize] {
            Place::In(seat) => Ok(seat.clone()),
            Place::Out | Place::Entering => Err(NotIn),
        }
    }

    /// The device acknowledges something. Nothing of ours asks it to.
    pub(super) fn acknowledged(&self, namespace: Namespace) -> Result<(), NotIn> {
        self.seat_in(namespace).map(drop)
    }

    /// Answers a message of the device in its own time.
    pub(super) fn answer(
        self: &Arc<Self>,
        namespace: Namespace,
        ack: Option<u64>,
        event: Event,
    ) -> Result<(), NotIn> {
        let seat = self.seat_in(namespace)?;
        let under_way = match seat.enter() {
            Ok(under_way) => under_way,
            Err(excess) => {
                if let Some(failure) = self.door.exceeded(&seat, excess) {
                    self.reply(namespace, ack, &event.name, Err(failure));
                }
                return Ok(());
            }
        };
        let socket = self.clone();
        tokio::spawn(async move {
            let name = event.name.clone();
            let outcome = socket.door.answer(&seat, &name, event.payload()).await;
            socket.reply(namespace, ack, &name, outcome);
            drop(under_way);
        });
        Ok(())
    }

    fn reply(
        &self,
        namespace: Namespace,
        ack: Option<u64>,
        event: &str,
        outcome: Result<Value, Failure>,
    ) {
        if let Some(frame) = packet::reply(namespace, ack, &Reply::to(event, outcome)) {
            // A device that is gone or does not read needs no answer.
            let _ = self.write(&frame);
        }
    }
}
