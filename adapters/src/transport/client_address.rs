//! Whose request it is, where trusted proxies stand between.

use std::net::{IpAddr, SocketAddr};

use http::{Extensions, HeaderMap, HeaderName};
use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address that a request came from; an extension of each. It is the connection's peer, or, where
/// that is a trusted proxy, whoever the proxies say it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

impl ClientAddress {
    /// Where a request comes from, for whatever is counted by address.
    pub(crate) fn of(extensions: &Extensions) -> Option<IpAddr> {
        extensions.get::<Self>().map(|Self(address)| *address)
    }
}

/// The proxies whose `X-Forwarded-For` is believed.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(Vec<IpNet>);

/// A text is neither an address nor a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a proxy is an address or a network, such as 10.0.0.7 or 10.0.0.0/8")]
pub struct InvalidProxy;

impl TrustedProxies {
    /// Takes addresses and networks in CIDR notation (RFC 4632, 3.1; RFC 4291, 2.3).
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

    /// Whom a trusted peer's request came from. Each proxy appends who it heard the request from, so the
    /// last address that is not a proxy's is what a trusted one has seen itself; what stands before it
    /// is anybody's word. (RFC 7239 says the same of `Forwarded`, in 5.2 and 8.1.)
    ///
    /// What cannot be read ends the search with the last proxy that could be.
    pub(super) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> ClientAddress {
        let mut client = peer.to_canonical();
        let lines = headers.get_all(X_FORWARDED_FOR).iter().rev();
        let hops = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
        for hop in hops {
            let Some(address) = address(hop) else { break };
            client = address;
            if !self.contains(address) {
                break;
            }
        }
        ClientAddress(client)
    }
}

/// An address as proxies write it: alone, or with a port as some do.
fn address(hop: &[u8]) -> Option<IpAddr> {
    let hop = std::str::from_utf8(hop).ok()?.trim();
    let bare = hop.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(hop);
    let address = bare.parse().ok().or_else(|| Some(hop.parse::<SocketAddr>().ok()?.ip()));
    address.map(|it| it.to_canonical())
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
    fn the_last_address_that_is_no_proxy_is_the_clients() {
        assert_eq!(client(&["203.0.113.9"]), "203.0.113.9");
        assert_eq!(client(&["203.0.113.9, 10.1.2.3, 192.0.2.1"]), "203.0.113.9");
        assert_eq!(client(&["203.0.113.9", "10.1.2.3"]), "203.0.113.9");
        assert_eq!(client(&["203.0.113.9, 2001:db8::1"]), "203.0.113.9");
    }

    #[test]
    fn what_a_client_claims_itself_stands_further_left_and_is_not_believed() {
        assert_eq!(client(&["127.0.0.1, 203.0.113.9"]), "203.0.113.9");
        assert_eq!(client(&["10.0.0.9, 203.0.113.9, 10.0.0.2"]), "203.0.113.9");
        assert_eq!(client(&["192.0.2.1", "203.0.113.9"]), "203.0.113.9");
    }

    #[test]
    fn without_anybody_else_the_furthest_proxy_is_the_client() {
        assert_eq!(client(&[]), "10.0.0.1");
        assert_eq!(client(&["10.0.0.3, 10.0.0.2"]), "10.0.0.3");
        assert_eq!(client(&["unknown"]), "10.0.0.1");
        assert_eq!(client(&["203.0.113.9, garbage, 10.0.0.2"]), "10.0.0.2");
        assert_eq!(client(&[""]), "10.0.0.1");
    }

    #[test]
    fn an_address_may_have_a_port_or_brackets() {
        for (written, meant) in [
            ("203.0.113.9:4711", "203.0.113.9"),
            ("[2a00::1]:4711", "2a00::1"),
            ("[2a00::1]", "2a00::1"),
            ("::ffff:203.0.113.9", "203.0.113.9"),
        ] {
            assert_eq!(client(&[written]), meant, "{written}");
        }
    }

    #[test]
    fn a_proxy_is_an_address_or_a_network() {
        for raw in ["", "10.0.0.0/33", "proxy.example.org", "10.0.0.1:80", "*"] {
            assert_eq!(TrustedProxies::parse([raw]).unwrap_err(), InvalidProxy, "{raw}");
        }
        let mapped = "::ffff:192.0.2.1".parse().unwrap();
        assert!(TrustedProxies::parse(["192.0.2.1"]).unwrap().contains(mapped));
    }
}
