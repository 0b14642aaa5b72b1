use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{Request, StatusCode};

use super::engine::opens_session;
use crate::limits::{Limit, PerSecond, Rate, RateByKey, network_of};
use crate::transport::ClientAddress;

/// The error code for a handshake above a limit.
pub(super) const TOO_MANY_HANDSHAKES: &str = "too_many_handshakes";

/// The average delay of a rejection, and its `Retry-After`.
const RETRY_IN: Duration = Duration::from_secs(1);

/// The limits on handshakes, checked before all other work for a device.
///
/// Above a limit, the opening request is rejected. Client libraries treat this as an unreachable server and retry
/// with backoff and jitter, which spreads the load of many clients that connect at once. Only a client that keeps
/// connecting on one transport gets a `connect_error`, after which libraries do not reconnect.
pub(super) struct HandshakeLimits {
    of_node: Option<Rate>,
    by_address: Option<RateByKey>,
}

/// How many more connects to a namespace the handshake of a transport covers. Each further connect, after leaving a
/// namespace, counts as a handshake.
pub(super) struct PrepaidHandshake(AtomicU8);

impl HandshakeLimits {
    pub(super) fn new(of_node: Option<PerSecond>, by_address: Option<PerSecond>) -> Self {
        Self { of_node: of_node.map(Rate::of), by_address: by_address.map(RateByKey::of) }
    }

    /// Counts a request if it opens a transport.
    pub(super) fn check_request(&self, request: &Request<Body>) -> Result<(), Limit> {
        if opens_session(request.method(), request.uri()) {
            self.take(ClientAddress::of(request.extensions()))?;
        }
        Ok(())
    }

    /// Counts a connect to a namespace, unless the transport's handshake covers it.
    pub(super) fn check_connect(
        &self,
        prepaid: &PrepaidHandshake,
        from: Option<IpAddr>,
    ) -> Result<(), Limit> {
        if prepaid.take() { Ok(()) } else { self.take(from) }
    }

    /// The address is checked first, so that handshakes above its limit do not count towards the node's limit.
    fn take(&self, from: Option<IpAddr>) -> Result<(), Limit> {
        if let Some(rates) = &self.by_address {
            let network = from.map(network_of);
            rates.take(&network).map_err(|_| Limit::HandshakesPerAddress)?;
        }
        match &self.of_node {
            Some(rate) => rate.take().map_err(|_| Limit::Handshakes),
            None => Ok(()),
        }
    }
}

impl PrepaidHandshake {
    pub(super) fn new(namespaces: usize) -> Self {
        Self(AtomicU8::new(u8::try_from(namespaces).unwrap_or(u8::MAX)))
    }

    fn take(&self) -> bool {
        let one_less = |left: u8| left.checked_sub(1);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less).is_ok()
    }
}

/// The response to a rejected request, sent after a random delay. During the delay, a client that ignores
/// `Retry-After` costs only its connection, and devices that arrived together do not retry together.
///
/// The status is 503 for the node's limit, so that proxies try another node, and 429 for an address's limit.
pub(super) async fn rejection(limit: Limit) -> Response {
    tokio::time::sleep(RETRY_IN.mul_f64(0.5 + fastrand::f64())).await;
    let status = match limit {
        Limit::Handshakes => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::TOO_MANY_REQUESTS,
    };
    let headers = [(CONTENT_TYPE, "application/json"), (CONNECTION, "close")];
    let retry_after = [(RETRY_AFTER, RETRY_IN.as_secs())];
    let body = format!(r#"{{"code":"{TOO_MANY_HANDSHAKES}","message":"too many handshakes"}}"#);
    (status, headers, retry_after, body).into_response()
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

    fn handshakes(at_node: u32, by_address: u32) -> HandshakeLimits {
        HandshakeLimits::new(PerSecond::new(at_node), PerSecond::new(by_address))
    }

    #[test]
    fn only_requests_that_open_a_transport_are_counted() {
        let handshakes = handshakes(0, 1);
        for _ in 0..10 {
            for (method, query) in [("GET", "?EIO=4&sid=a"), ("POST", "?EIO=4"), ("OPTIONS", "")] {
                let request = request(method, &format!("/socket.io/{query}"));
                assert_eq!(handshakes.check_request(&request), Ok(()));
            }
        }
        let admitted = [(); 3].map(|()| handshakes.check_request(&opening()));
        assert_eq!(admitted, [Ok(()), Ok(()), Err(Limit::HandshakesPerAddress)]);
    }

    #[test]
    fn one_address_does_not_exhaust_the_limit_of_the_node() {
        let handshakes = handshakes(2, 1);
        let from = |last: u8| handshakes.take(Some(IpAddr::from([192, 0, 2, last])));
        let of_address = Err(Limit::HandshakesPerAddress);
        assert_eq!([1; 5].map(from), [Ok(()), Ok(()), of_address, of_address, of_address]);
        assert_eq!([2, 3, 4].map(from), [Ok(()), Ok(()), Err(Limit::Handshakes)]);
    }

    #[test]
    fn without_limits_every_handshake_passes() {
        let handshakes = handshakes(0, 0);
        assert!((0..10_000).all(|_| handshakes.check_request(&opening()).is_ok()));
    }

    #[test]
    fn handshake_covers_its_namespaces_and_further_connects_are_counted() {
        let handshakes = handshakes(0, 1);
        let prepaid = PrepaidHandshake::new(2);
        let admitted = [(); 5].map(|()| handshakes.check_connect(&prepaid, None).is_ok());
        assert_eq!(admitted, [true, true, true, true, false]);
    }
}
