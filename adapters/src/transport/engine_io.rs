use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use axum::body::Body;
use axum::response::Response;
use http::header::{self, HeaderName};
use http::{HeaderValue, Method, Request, Uri};
use hyper::upgrade::OnUpgrade;
use parking_lot::Mutex;
use socketioxide::TransportType;
use socketioxide::extract::SocketRef;
use socketioxide::socket::Sid;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

use super::client_address::ClientAddress;
use super::frames::LastWord;
use super::outlet::Outlet;

/// The Engine.IO server as a service, whatever it is made of.
pub(crate) type EngineService =
    BoxCloneSyncService<Request<Body>, Response, std::convert::Infallible>;

/// How the library's Engine.IO sessions travel, so that one can be ended at once: those that poll, and
/// those that began so.
///
/// The library ends a session's namespace but not its transport: a client that stays silent would
/// keep it for ever. A WebSocket is cut at its TCP connection; a polling session is ended by the
/// packet with which its client would end it.
#[derive(Default)]
pub struct Transports {
    engine: OnceLock<EngineService>,
    /// The WebSockets that sessions have gone on by.
    upgraded: Mutex<Upgraded>,
    /// Polling sessions that end once their client has fetched the packet that says so. Each is here
    /// for [`Outlet::PATIENCE`] at most.
    leaving: Mutex<HashMap<Box<str>, LastWord>>,
}

/// The way of a session, of which it keeps nothing alive.
pub(crate) struct Route {
    sid: Box<str>,
    outlet: Option<Outlet>,
}

#[derive(Default)]
struct Upgraded {
    outlets: HashMap<Box<str>, Outlet>,
    sweep_at: usize,
}

impl Transports {
    const SWEEP_AT_LEAST: usize = 1_024;

    pub(crate) fn serve_by(&self, engine: EngineService) {
        // Set once, while the door is built.
        let _ = self.engine.set(engine);
    }

    /// Closes the transport that the socket travels by.
    pub fn close(self: &Arc<Self>, socket: &SocketRef) {
        let (transports, route) = (self.clone(), self.route_of(socket));
        tokio::spawn(async move {
            tokio::time::sleep(Outlet::GRACE).await;
            transports.cut(route).await;
        });
    }

    /// Closes the transport that the socket travels by, as soon as its last word, which is being
    /// queued, has gone out.
    pub fn close_after(self: &Arc<Self>, last_word: LastWord, socket: &SocketRef) {
        let (transports, route) = (self.clone(), self.route_of(socket));
        if route.outlet.is_none() {
            self.leaving.lock().insert(route.sid.clone(), last_word);
        }
        tokio::spawn(async move {
            Outlet::until_out(|| match &route.outlet {
                Some(outlet) => outlet.has_said(last_word),
                // By polling: taken out when it was fetched.
                None => !transports.leaving.lock().contains_key(&route.sid),
            })
            .await;
            transports.leaving.lock().remove(&route.sid);
            transports.cut(route).await;
        });
    }

    /// Looks at what a poll of that session fetched: ends the session if it was its last word.
    pub(crate) async fn fetched(&self, sid: &str, answer: Response) -> Response {
        let Some(last_word) = self.leaving.lock().get(sid).copied() else { return answer };
        let (parts, body) = answer.into_parts();
        // At most what the library puts into one answer, which is bounded.
        let payload = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
        if last_word.is_in(&payload) {
            self.leaving.lock().remove(sid);
            self.close_polling(sid).await;
        }
        Response::from_parts(parts, Body::from(payload))
    }

    /// How the socket travels, for whoever may want to end that later and must not hold the socket.
    pub(crate) fn route_of(&self, socket: &SocketRef) -> Route {
        Route { sid: socket.id.to_string().into(), outlet: self.outlet_of(socket) }
    }

    /// Ends what travels there. Does nothing to what is gone.
    pub(crate) async fn cut(&self, route: Route) {
        // It may have gone on by a WebSocket since.
        let upgraded = || self.upgraded.lock().outlets.get(&route.sid).cloned();
        match route.outlet.or_else(upgraded) {
            Some(outlet) => outlet.hang_up(),
            // Its connection is not cut: behind a proxy it may carry other people's requests.
            None => self.close_polling(&route.sid).await,
        }
    }

    /// The WebSocket's connection; `None` for a session that polls.
    pub(crate) fn outlet_of(&self, socket: &SocketRef) -> Option<Outlet> {
        if socket.transport_type() == TransportType::Polling {
            return None;
        }
        self.upgraded.lock().outlets.get(socket.id.as_str()).cloned()
    }

    /// The WebSocket of a session that began by polling is gone: so is the session, if it was not yet on
    /// that WebSocket.
    pub(crate) fn give_up(self: Arc<Self>, sid: String) {
        self.upgraded.lock().outlets.remove(sid.as_str());
        // Nothing is left to be given up when the process ends.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { self.close_polling(&sid).await });
        }
    }

    pub(crate) async fn close_polling(&self, sid: &str) {
        let Some(engine) = self.engine.get() else {
            return;
        };
        let uri = format!("/socket.io/?EIO=4&transport=polling&sid={sid}");
        let goodbye = Request::post(uri)
            .header(header::CONTENT_TYPE, "text/plain;charset=UTF-8")
            .body(Body::from("1"))
            .expect("a session id is made of letters that a URI may hold");
        let _ = engine.clone().oneshot(goodbye).await;
    }

    /// Notes how a session goes on by a WebSocket. `false` if it has one already, or is on its way to one:
    /// then this one is to be closed, as Engine.IO's own server does. Were it noted in the other's place,
    /// nobody could cut that any more.
    pub(crate) fn note(&self, sid: &str, outlet: Outlet) -> bool {
        self.upgraded.lock().remember(sid, outlet)
    }
}

impl Upgraded {
    /// Anybody can name any session, so what is remembered is bounded by what is connected.
    fn remember(&mut self, sid: &str, outlet: Outlet) -> bool {
        if self.outlets.get(sid).is_some_and(|its| !its.is_gone()) {
            return false;
        }
        if self.outlets.len() >= self.sweep_at {
            self.outlets.retain(|_, outlet| !outlet.is_gone());
            self.sweep_at = (self.outlets.len() * 2).max(Transports::SWEEP_AT_LEAST);
        }
        self.outlets.insert(sid.into(), outlet);
        true
    }
}

/// Whether a packet is a Socket.IO event, with attachments or without, behind Engine.IO's own `4` for a
/// message.
pub(crate) fn is_event(packet: &[u8]) -> bool {
    [b"42", b"45"].iter().any(|begins| packet.starts_with(*begins))
}

/// Whether a WebSocket of this address is taken; if not, the library says why not.
pub(crate) fn is_for_websocket(uri: &Uri) -> bool {
    ["EIO=4", "transport=websocket"].iter().all(|its| parameters(uri).any(|one| one == *its))
        && named_session(uri).is_none_or(|sid| sid.parse::<Sid>().is_ok())
}

/// The session whose packets a request polls for.
pub(crate) fn polled_session(request: &Request<Body>) -> Option<&str> {
    session_by("transport=polling", request.uri()).filter(|_| request.method() == Method::GET)
}

/// The session that a request sends packets of.
pub(crate) fn posting_session(request: &Request<Body>) -> Option<&str> {
    session_by("transport=polling", request.uri()).filter(|_| request.method() == Method::POST)
}

fn session_by<'a>(transport: &str, uri: &'a Uri) -> Option<&'a str> {
    named_session(uri).filter(|_| parameters(uri).any(|one| one == transport))
}

/// The session that a request goes on with; `None` if it is to begin one.
pub(crate) fn named_session(uri: &Uri) -> Option<&str> {
    parameters(uri).find_map(|one| one.strip_prefix("sid="))
}

fn parameters(uri: &Uri) -> impl Iterator<Item = &str> {
    uri.query().unwrap_or_default().split('&')
}

/// The request with nothing in it that an idle connection should not keep alive.
///
/// The library keeps the opening request for as long as the session lives, and with it, as its URI
/// and headers are slices of it, the 16 KiB buffer that they were read into.
pub(crate) fn lean(request: Request<Body>) -> Request<Body> {
    const KEPT: [HeaderName; 8] = [
        header::AUTHORIZATION,
        header::CONNECTION,
        header::CONTENT_TYPE,
        header::ORIGIN,
        header::SEC_WEBSOCKET_KEY,
        header::SEC_WEBSOCKET_PROTOCOL,
        header::SEC_WEBSOCKET_VERSION,
        header::UPGRADE,
    ];
    copy_with(&KEPT, request)
}

/// The same for a WebSocket whose opening handshake is ours.
pub(crate) fn leanest(request: Request<Body>) -> Request<()> {
    copy_with(&[header::AUTHORIZATION], request).map(drop)
}

fn copy_with(kept: &[HeaderName], request: Request<Body>) -> Request<Body> {
    let (mut parts, body) = request.into_parts();
    let mut lean = Request::new(body);
    *lean.method_mut() = parts.method;
    *lean.version_mut() = parts.version;
    // Parsed from its text it has a buffer of its own; what was a URI stays one.
    *lean.uri_mut() = parts.uri.to_string().parse().unwrap_or(parts.uri);
    for name in kept {
        if let Some(value) = parts.headers.get(name)
            && let Ok(copy) = HeaderValue::from_bytes(value.as_bytes())
        {
            lean.headers_mut().insert(name, copy);
        }
    }
    if let Some(upgrade) = parts.extensions.remove::<OnUpgrade>() {
        lean.extensions_mut().insert(upgrade);
    }
    if let Some(client) = parts.extensions.remove::<ClientAddress>() {
        lean.extensions_mut().insert(client);
    }
    lean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lean_request_keeps_what_the_handshake_needs() {
        let request = Request::get("/socket.io/?EIO=4&transport=websocket&token=t")
            .header("authorization", "Bearer t")
            .header("sec-websocket-key", "k")
            .header("cookie", "large")
            .body(Body::empty())
            .unwrap();
        let lean = lean(request);
        assert_eq!(lean.uri().query(), Some("EIO=4&transport=websocket&token=t"));
        assert_eq!(lean.headers()["authorization"], "Bearer t");
        assert_eq!(lean.headers()["sec-websocket-key"], "k");
        assert!(!lean.headers().contains_key("cookie"));
    }
}
