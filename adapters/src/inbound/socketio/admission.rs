//! Which handshakes are too many.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{Method, Request, StatusCode};

use crate::limits::{Limit, PerSecond, Rate, RateByKey, network_of};
use crate::transport::{ClientAddress, named_session};

/// The code of a handshake that is refused because there are too many.
pub(super) const TOO_MANY_HANDSHAKES: &str = "too_many_handshakes";

/// How long a device that is one too many is to stay away, on average.
const COME_BACK_AFTER: Duration = Duration::from_secs(1);

/// What may come in, looked at before anything else is done for a device.
///
/// A device too many finds its first request refused, before there is any session for it. Client
/// libraries take that for a server that cannot be reached, and try again after growing, random
/// pauses: what a node wants of many that come at once. After a `connect_error` they would stay away.
pub(super) struct Handshakes {
    at_node: Option<Rate>,
    by_address: Option<RateByKey>,
}

/// How many namespaces may still be connected to by a transport whose handshake was let pass. Further
/// ones, after leaving these, are handshakes of their own.
pub(super) struct Covered(AtomicU8);

impl Handshakes {
    pub(super) fn new(at_node: Option<PerSecond>, by_address: Option<PerSecond>) -> Self {
        Self { at_node: at_node.map(Rate::of), by_address: by_address.map(RateByKey::of) }
    }

    /// Lets a request pass, unless it would open a transport too many.
    pub(super) fn admit(&self, request: &Request<Body>) -> Result<(), Limit> {
        if opens_transport(request) {
            self.take(ClientAddress::of(request.extensions()))?;
        }
        Ok(())
    }

    /// Lets a device connect to a namespace by a transport whose handshake covers this, from there.
    pub(super) fn admit_to_namespace(
        &self,
        covered: Option<&Covered>,
        from: Option<IpAddr>,
    ) -> Result<(), Limit> {
        if covered.is_some_and(Covered::take) {
            return Ok(());
        }
        self.take(from)
    }

    /// The address first: what it has too much of is not taken from all others.
    fn take(&self, from: Option<IpAddr>) -> Result<(), Limit> {
        if let Some(rates) = &self.by_address {
            let network = from.map(network_of);
            rates.take(&network).map_err(|_| Limit::HandshakesPerAddress)?;
        }
        match &self.at_node {
            Some(rate) => rate.take().map_err(|_| Limit::Handshakes),
            None => Ok(()),
        }
    }
}

/// The handshake of this transport lets it connect to so many namespaces.
pub(super) fn cover(request: &mut Request<Body>, namespaces: u8) {
    request.extensions_mut().insert(Arc::new(Covered::by(namespaces)));
}

impl Covered {
    pub(super) fn by(namespaces: u8) -> Self {
        Self(AtomicU8::new(namespaces))
    }

    fn take(&self) -> bool {
        let one_less = |left: u8| left.checked_sub(1);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less).is_ok()
    }
}

/// Whether a request opens a transport: it names no session to go on with.
fn opens_transport(request: &Request<Body>) -> bool {
    request.method() == Method::GET && named_session(request.uri()).is_none()
}

/// The answer to a request that is refused, once the device may come again: one that comes again at once,
/// whatever it is told, costs no more than its connection. They are answered half the time sooner or later,
/// each by chance, so that those who came together do not come again together.
///
/// Another node may have room where this one has none, and proxies go on to it after a 503.
pub(super) async fn refusal(limit: Limit) -> Response {
    tokio::time::sleep(COME_BACK_AFTER.mul_f64(0.5 + fastrand::f64())).await;
    let status = match limit {
        Limit::Handshakes => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::TOO_MANY_REQUESTS,
    };
    let headers = [(CONTENT_TYPE, "application/json"), (CONNECTION, "close")];
    let come_back = [(RETRY_AFTER, COME_BACK_AFTER.as_secs())];
    let body = format!(r#"{{"code":"{TOO_MANY_HANDSHAKES}","message":"too many handshakes"}}"#);
    (status, headers, come_back, body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, uri: &str) -> Request<Body> {
        Request::builder().method(method).uri(uri).body(Body::empty()).unwrap()
    }

    fn opening() -> Request<Body> {
        request("GET", "/socket.io/?EIO=4&transport=websocket")
    }

    fn handshakes(at_node: u32, by_address: u32) -> Handshakes {
        Handshakes::new(PerSecond::new(at_node), PerSecond::new(by_address))
    }

    #[test]
    fn only_what_opens_a_transport_is_counted() {
        let handshakes = handshakes(0, 1);
        for _ in 0..10 {
            for (method, query) in [("GET", "?EIO=4&sid=a"), ("POST", "?EIO=4"), ("OPTIONS", "")] {
                let request = request(method, &format!("/socket.io/{query}"));
                assert_eq!(handshakes.admit(&request), Ok(()));
            }
        }
        let admitted = [(); 3].map(|()| handshakes.admit(&opening()));
        assert_eq!(admitted, [Ok(()), Ok(()), Err(Limit::HandshakesPerAddress)]);
    }

    #[test]
    fn one_address_does_not_use_up_what_is_for_all() {
        let handshakes = handshakes(2, 1);
        let from = |last: u8| handshakes.take(Some(IpAddr::from([192, 0, 2, last])));
        let of_address = Err(Limit::HandshakesPerAddress);
        assert_eq!([1; 5].map(from), [Ok(()), Ok(()), of_address, of_address, of_address]);
        assert_eq!([2, 3, 4].map(from), [Ok(()), Ok(()), Err(Limit::Handshakes)]);
    }

    #[test]
    fn no_limit_lets_everybody_in() {
        let handshakes = handshakes(0, 0);
        assert!((0..10_000).all(|_| handshakes.admit(&opening()).is_ok()));
    }

    #[test]
    fn a_transport_comes_with_its_namespaces_and_further_ones_are_counted() {
        let handshakes = handshakes(0, 1);
        let covered = Covered::by(2);
        let admitted =
            [(); 5].map(|()| handshakes.admit_to_namespace(Some(&covered), None).is_ok());
        assert_eq!(admitted, [true, true, true, true, false]);
    }
}
