//! Finds the client of a request that came through trusted proxies.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::{Extensions, HeaderMap, HeaderName};
use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address that a request came from; an extension of each request. It is the address of the connection's
/// peer. If that peer is a trusted proxy, it is the address that the proxies report instead, or
/// [`UNREADABLE`](Self::UNREADABLE).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

impl ClientAddress {
    /// The address of all clients that a trusted proxy reports without a readable address (`unknown`, `unix:`):
    /// 0.0.0.0, which no client has. These clients share the limits of one client, because a client must not
    /// escape the limits by having no address of its own.
    pub const UNREADABLE: Self = Self(IpAddr::V4(Ipv4Addr::UNSPECIFIED));

    /// The address in these extensions; `None` only in tests.
    pub(crate) fn of(extensions: &Extensions) -> Option<IpAddr> {
        extensions.get::<Self>().map(|Self(address)| *address)
    }
}

/// The proxies whose `X-Forwarded-For` is trusted.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(Vec<IpNet>);

/// The text is neither an address nor a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a proxy is an address or a network, such as 10.0.0.7 or 10.0.0.0/8")]
pub struct InvalidProxy;

impl TrustedProxies {
    /// Parses addresses and networks in CIDR notation (RFC 4632, section 3.1; RFC 4291, section 2.3).
    pub fn parse<'a>(raw: impl IntoIterator<Item = &'a str>) -> Result<Self, InvalidProxy> {
        let network = |one: &str| {
            one.parse()
                .or_else(|_| one.parse::<IpAddr>().map(IpNet::from))
                .map_err(|_| InvalidProxy)
        };
        raw.into_iter().map(network).collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The client whose request a trusted peer forwards. Each proxy appends the address that it received the
    /// request from, so the last address that is not a trusted proxy's is the client's. A client can forge only
    /// the addresses before it. (RFC 7239, sections 5.2 and 8.1, on `Forwarded`.)
    ///
    /// Empty entries are ignored (RFC 9110, section 5.6.1.2). If an address cannot be parsed, the client is
    /// [`ClientAddress::UNREADABLE`].
    pub(super) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> ClientAddress {
        let mut client = peer.to_canonical();
        let lines = headers.get_all(X_FORWARDED_FOR).iter().rev();
        let hops = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
        for hop in hops.map(<[u8]>::trim_ascii).filter(|hop| !hop.is_empty()) {
            let Some(address) = address(hop) else { return ClientAddress::UNREADABLE };
            client = address;
            if !self.contains(address) {
                break;
            }
        }
        ClientAddress(client)
    }
}

/// Parses an address as proxies write it. Some add a port, or the zone of a link-local address.
fn address(hop: &[u8]) -> Option<IpAddr> {
    let hop = std::str::from_utf8(hop).ok()?;
    let bare = hop.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(hop);
    let bare = bare.split_once('%').map_or(bare, |(address, _)| address);
    let address = bare.parse().ok().or_else(|| Some(hop.parse::<SocketAddr>().ok()?.ip()));
    address.map(|it: IpAddr| it.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(lines: &[&str]) -> String {
        let trusted = TrustedProxies::parse(["10.0.0.0/8", "192.0.2.1", "2001:db8::/32"]).unwrap();
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(X_FORWARDED_FOR, line.parse().unwrap());
        }
        trusted.client("10.0.0.1".parse().unwrap(), &headers).0.to_string()
    }

    #[test]
    fn last_address_that_is_not_a_proxy_is_the_client() {
        assert_eq!(client(&["203.0.113.9"]), "203.0.113.9");
        assert_eq!(client(&["203.0.113.9, 10.1.2.3, 192.0.2.1"]), "203.0.113.9");
        assert_eq!(client(&["203.0.113.9", "10.1.2.3"]), "203.0.113.9");
        assert_eq!(client(&["203.0.113.9, 2001:db8::1"]), "203.0.113.9");
    }

    #[test]
    fn addresses_forged_by_the_client_are_ignored() {
        assert_eq!(client(&["127.0.0.1, 203.0.113.9"]), "203.0.113.9");
        assert_eq!(client(&["10.0.0.9, 203.0.113.9, 10.0.0.2"]), "203.0.113.9");
        assert_eq!(client(&["192.0.2.1", "203.0.113.9"]), "203.0.113.9");
    }

    #[test]
    fn without_another_address_the_first_proxy_is_the_client() {
        assert_eq!(client(&[]), "10.0.0.1");
        assert_eq!(client(&["10.0.0.3, 10.0.0.2"]), "10.0.0.3");
        assert_eq!(client(&[""]), "10.0.0.1");
        assert_eq!(client(&["10.0.0.3, , 10.0.0.2,"]), "10.0.0.3");
    }

    #[test]
    fn all_clients_without_a_readable_address_are_one_client() {
        for unreadable in [
            "unknown",
            "unix:",
            "_hidden",
            "203.0.113.9, garbage, 10.0.0.2",
            "203.0.113.9:99999",
            "203.0.113.9 10.0.0.2",
            "\"203.0.113.9\"",
        ] {
            assert_eq!(client(&[unreadable]), "0.0.0.0", "{unreadable}");
        }
    }

    #[test]
    fn address_may_have_a_port_brackets_or_a_zone() {
        for (written, expected) in [
            ("203.0.113.9:4711", "203.0.113.9"),
            ("[2a00::1]:4711", "2a00::1"),
            ("[2a00::1]", "2a00::1"),
            ("::ffff:203.0.113.9", "203.0.113.9"),
            ("fe80::1%eth0", "fe80::1"),
            ("[fe80::1%25eth0]", "fe80::1"),
        ] {
            assert_eq!(client(&[written]), expected, "{written}");
        }
    }

    #[test]
    fn proxy_is_an_address_or_a_network() {
        for raw in ["", "10.0.0.0/33", "proxy.example.org", "10.0.0.1:80", "*"] {
            assert_eq!(TrustedProxies::parse([raw]).unwrap_err(), InvalidProxy, "{raw}");
        }
        let mapped = "::ffff:192.0.2.1".parse().unwrap();
        assert!(TrustedProxies::parse(["192.0.2.1"]).unwrap().contains(mapped));
    }
}
