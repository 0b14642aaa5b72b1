use std::net::IpAddr;

use axum::extract::ConnectInfo;
use http::Extensions;

use super::listener::Peer;

/// Where a request comes from, for whatever is counted by address: the one place that decides it.
pub(crate) fn client_address(extensions: &Extensions) -> Option<IpAddr> {
    extensions.get::<ConnectInfo<Peer>>().map(|ConnectInfo(peer)| peer.address.ip())
}
