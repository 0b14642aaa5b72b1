use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::Response;
use http::header::{self, HeaderName};
use http::{HeaderValue, Request, Uri};
use hyper::upgrade::OnUpgrade;
use parking_lot::Mutex;
use socketioxide::TransportType;
use socketioxide::extract::SocketRef;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;
use tracing::debug;

use crate::inbound::listener::Peer;

/// The Engine.IO server as a service, whatever it is made of.
pub(super) type EngineService =
    BoxCloneSyncService<Request<Body>, Response, std::convert::Infallible>;

/// How Engine.IO sessions travel, so that one can be ended at once.
///
/// The library ends a session's namespace but not its transport: a client that stays silent would
/// keep it for ever. A WebSocket is cut at its TCP connection; a polling session is ended by the
/// packet with which its client would end it.
#[derive(Default)]
pub struct Transports {
    engine: OnceLock<EngineService>,
    /// The WebSockets of sessions that began by polling; others are known by their first request.
    upgraded: Mutex<Upgraded>,
}

#[derive(Default)]
struct Upgraded {
    peers: HashMap<Box<str>, Peer>,
    sweep_at: usize,
}

impl Transports {
    /// What is queued for the device gets this long to be written before the transport is closed.
    const GRACE: Duration = Duration::from_millis(25);
    const SWEEP_AT_LEAST: usize = 1_024;

    pub(super) fn serve_by(&self, engine: EngineService) {
        // Set once, while the door is built.
        let _ = self.engine.set(engine);
    }

    /// Closes the transport that the socket travels by, after what is queued was written.
    pub fn close(self: &Arc<Self>, socket: &SocketRef) {
        let transports = self.clone();
        let socket = socket.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Self::GRACE).await;
            transports.close_now(&socket).await;
        });
    }

    async fn close_now(&self, socket: &SocketRef) {
        let sid = socket.id.to_string();
        let upgraded = self.upgraded.lock().peers.remove(sid.as_str());
        if let Some(peer) = upgraded {
            return peer.hang_up();
        }
        match socket.transport_type() {
            TransportType::Websocket => {
                let peer = peer_of(&socket.req_parts().extensions);
                if let Some(peer) = peer {
                    peer.hang_up()
                } else {
                    debug!(%sid, "a transport without a peer cannot be closed");
                }
            }
            // Its connection is not cut: behind a proxy it may carry other people's requests.
            TransportType::Polling => self.close_polling(&sid).await,
        }
    }

    async fn close_polling(&self, sid: &str) {
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

    /// Remembers how a session goes on when it upgrades from polling.
    pub(super) fn note(&self, request: &Request<Body>) {
        let Some(sid) = upgraded_session(request.uri()) else {
            return;
        };
        let Some(peer) = peer_of(request.extensions()) else {
            return;
        };
        self.upgraded.lock().remember(sid, peer);
    }
}

impl Upgraded {
    /// Anybody can name any session, so what is remembered is bounded by what is connected.
    fn remember(&mut self, sid: &str, peer: Peer) {
        if self.peers.len() >= self.sweep_at {
            self.peers.retain(|_, peer| !peer.is_gone());
            self.sweep_at = (self.peers.len() * 2).max(Transports::SWEEP_AT_LEAST);
        }
        self.peers.insert(sid.into(), peer);
    }
}

fn peer_of(extensions: &http::Extensions) -> Option<Peer> {
    extensions.get::<ConnectInfo<Peer>>().map(|ConnectInfo(peer)| peer.clone())
}

/// The session that a WebSocket request names, if it goes on with one.
fn upgraded_session(uri: &Uri) -> Option<&str> {
    let mut parameters = uri.query()?.split('&');
    let websocket = parameters.clone().any(|one| one == "transport=websocket");
    parameters.find_map(|one| one.strip_prefix("sid=")).filter(|_| websocket)
}

/// The request with nothing in it that an idle connection should not keep alive.
///
/// The library keeps the opening request for as long as the session lives, and with it, as its URI
/// and headers are slices of it, the 16 KiB buffer that they were read into.
pub(super) fn lean(request: Request<Body>) -> Request<Body> {
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
    let (mut parts, body) = request.into_parts();
    let mut lean = Request::new(body);
    *lean.method_mut() = parts.method;
    *lean.version_mut() = parts.version;
    // Parsed from its text it has a buffer of its own; what was a URI stays one.
    *lean.uri_mut() = parts.uri.to_string().parse().unwrap_or(parts.uri);
    for name in KEPT {
        if let Some(value) = parts.headers.get(&name)
            && let Ok(copy) = HeaderValue::from_bytes(value.as_bytes())
        {
            lean.headers_mut().insert(name, copy);
        }
    }
    if let Some(upgrade) = parts.extensions.remove::<OnUpgrade>() {
        lean.extensions_mut().insert(upgrade);
    }
    if let Some(peer) = parts.extensions.remove::<ConnectInfo<Peer>>() {
        lean.extensions_mut().insert(peer);
    }
    lean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_upgrade_names_the_session_it_goes_on_with() {
        let session =
            |uri: &'static str| upgraded_session(&Uri::from_static(uri)).map(str::to_owned);
        assert_eq!(session("/socket.io/?EIO=4&transport=websocket&sid=ab").as_deref(), Some("ab"));
        assert_eq!(session("/socket.io/?EIO=4&transport=websocket"), None);
        assert_eq!(session("/socket.io/?EIO=4&transport=polling&sid=ab"), None);
        assert_eq!(session("/socket.io/"), None);
    }

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
