use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{Request, StatusCode};

use super::engine::is_opening;
use crate::limits::{
    KnownNetworks, Limit, PerSecond, Rate, RateByKey, SITE_TIMES, network_of, site_of,
};
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
///
/// A known network is one from which a device has signed in lately. Handshakes from it do not count towards the limit
/// of its site, and have a reserve when other clients have used up the node's limit. The token cannot distinguish
/// devices from attackers here, because it comes after the handshake, in the CONNECT packet.
pub(super) struct HandshakeLimits {
    of_node: Option<Rate>,
    /// For known networks when the node's limit is used up. It is as high as the node's limit.
    reserve: Option<Rate>,
    by_address: Option<RateByKey>,
    by_site: Option<RateByKey>,
    known: KnownNetworks,
}

/// The number of connects that the handshake of a transport still covers: at first, one for each namespace. A further
/// connect, which is possible after leaving a namespace, counts as another handshake.
pub(super) struct PrepaidHandshake(AtomicU8);

impl HandshakeLimits {
    pub(super) fn new(of_node: Option<PerSecond>, by_address: Option<PerSecond>) -> Self {
        Self {
            of_node: of_node.map(Rate::of),
            reserve: of_node.map(Rate::of),
            by_address: by_address.map(RateByKey::of),
            by_site: by_address.map(|rate| RateByKey::multiplied(rate, SITE_TIMES)),
            known: KnownNetworks::new(),
        }
    }

    /// Records that a device has signed in from this address.
    pub(super) fn remember(&self, client: Option<IpAddr>) {
        if let Some(client) = client {
            self.known.remember(network_of(client));
        }
    }

    /// Counts a request if it opens a transport.
    pub(super) fn check_request(&self, request: &Request<Body>) -> Result<(), Limit> {
        if is_opening(request.method(), request.uri()) {
            self.take(ClientAddress::of(request.extensions()))?;
        }
        Ok(())
    }

    /// Counts a connect to a namespace, unless the transport's handshake covers it.
    pub(super) fn check_connect(
        &self,
        prepaid: &PrepaidHandshake,
        client: Option<IpAddr>,
    ) -> Result<(), Limit> {
        if prepaid.take() { Ok(()) } else { self.take(client) }
    }

    /// Counts a handshake. The address is checked first and its site next, so that handshakes above these limits do
    /// not count towards the node's limit.
    fn take(&self, client: Option<IpAddr>) -> Result<(), Limit> {
        let network = client.map(network_of);
        if let Some(rates) = &self.by_address {
            rates.take(&network).map_err(|_| Limit::HandshakesPerAddress)?;
        }
        let is_known = network.is_some_and(|network| self.known.contains(network));
        if let Some(rates) = self.by_site.as_ref().filter(|_| !is_known) {
            rates.take(&client.map(site_of)).map_err(|_| Limit::HandshakesPerSite)?;
        }
        let within = |rate: &Option<Rate>| rate.as_ref().is_none_or(|rate| rate.take().is_ok());
        if within(&self.of_node) || is_known && within(&self.reserve) {
            Ok(())
        } else {
            Err(Limit::Handshakes)
        }
    }
}

impl PrepaidHandshake {
    /// Covers one connect to each of `namespaces`.
    pub(super) fn new(namespaces: usize) -> Self {
        Self(AtomicU8::new(u8::try_from(namespaces).unwrap_or(u8::MAX)))
    }

    /// Uses one of the connects. `false` if none is left.
    fn take(&self) -> bool {
        let one_less = |left: u8| left.checked_sub(1);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less).is_ok()
    }
}

/// The response to a rejected request, sent after a random delay. Because of the delay, devices that arrived together
/// do not retry together, and a client that ignores `Retry-After` waits at the cost of only its connection.
///
/// The status is 503 for the node's limit, so that proxies try another node, and 429 for the limit of an address or a
/// site.
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
    fn one_site_does_not_exhaust_the_limit_of_the_node() {
        for address in [
            |n: u16| IpAddr::from([0x2001, 0xdb8, 1, n, 0, 0, 0, 1]),
            |n: u16| IpAddr::from([192, 0, 2, u8::try_from(n).unwrap()]),
        ] {
            let handshakes = handshakes(10, 1);
            let results: Vec<_> = (0..40).map(|n| handshakes.take(Some(address(n)))).collect();
            let admitted = results.iter().filter(|result| result.is_ok()).count();
            assert_eq!(admitted, 10, "a site may have 5 a second, and a burst of twice that");
            assert_eq!(results[39], Err(Limit::HandshakesPerSite));
            assert_eq!(handshakes.take(Some(IpAddr::from([198, 51, 100, 1]))), Ok(()));
        }
    }

    #[test]
    fn unknown_networks_do_not_lock_out_known_networks() {
        let handshakes = handshakes(10, 5);
        let (device, neighbor) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        assert_eq!(handshakes.take(Some(device)), Ok(()));
        handshakes.remember(Some(device));
        // Forty addresses, each in a site of its own.
        let unknown = |n: u8| handshakes.take(Some(IpAddr::from([198, 51, n, 1])));
        assert!((0..40).flat_map(unknown).count() < 40);
        assert_eq!(handshakes.take(Some(neighbor)), Err(Limit::Handshakes));
        assert_eq!([(); 5].map(|()| handshakes.take(Some(device))), [Ok(()); 5]);
    }

    #[test]
    fn known_networks_are_limited_too() {
        let handshakes = handshakes(10, 5);
        let known = |n: u8| IpAddr::from([192, 0, 2, n]);
        (0..100).for_each(|n| handshakes.remember(Some(known(n))));
        let admitted = (0..100).filter(|n| handshakes.take(Some(known(*n))).is_ok()).count();
        assert_eq!(admitted, 40, "the burst of the node's limit, and as much again");
        let results = [(); 20].map(|()| handshakes.take(Some(known(200))));
        assert_eq!(results[19], Err(Limit::HandshakesPerAddress));
    }

    #[test]
    fn without_limits_every_handshake_passes() {
        let handshakes = handshakes(0, 0);
        assert!((0..10_000).all(|_| handshakes.check_request(&opening()).is_ok()));
    }

    #[test]
    fn handshake_covers_its_namespaces_and_further_connects_are_counted() {
        let handshakes = handshakes(0, 1);
        // Two connects are prepaid, and the burst of the address has two more.
        let prepaid = PrepaidHandshake::new(2);
        let admitted = [(); 5].map(|()| handshakes.check_connect(&prepaid, None).is_ok());
        assert_eq!(admitted, [true, true, true, true, false]);
    }
}
