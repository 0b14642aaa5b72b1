use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;

/// The network of one subscriber: an IPv4 address, or an IPv6 /64, in which a subscriber can use any number of
/// addresses (RFC 6177).
pub(crate) fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}

/// The network of one site: an IPv4 /24, or an IPv6 /48, the largest network that a provider assigns to one
/// customer (RFC 6177). A client that has a whole site can evade a limit per address, so there is also a
/// limit per site.
pub(crate) fn site_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 80)).into(),
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() & (u32::MAX << 8)).into(),
    }
}

/// The limit of a site, as a multiple of the limit of an address. Many subscribers can share a site (a mobile carrier,
/// a company), so the multiple is greater than one. With the default limits, a site gets a quarter of the node's
/// connections and half of its handshakes.
pub(crate) const SITE_TIMES: NonZeroU32 = NonZeroU32::new(5).unwrap();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_subscriber_have_the_same_network() {
        let network = |text: &str| network_of(text.parse().unwrap());
        for (one, other, same) in [
            ("2001:db8::1", "2001:db8::ffff:1:2:3", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
            ("::ffff:10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("::ffff:10.0.0.1", "::ffff:10.0.0.2", false),
        ] {
            assert_eq!(network(one) == network(other), same, "{one} {other}");
        }
        assert_eq!(network("2001:db8:1:2:3:4:5:6").to_string(), "2001:db8:1:2::");
    }

    #[test]
    fn site_is_an_ipv6_48_or_an_ipv4_24() {
        let site = |text: &str| site_of(text.parse().unwrap()).to_string();
        assert_eq!(site("2001:db8:1:2:3:4:5:6"), "2001:db8:1::");
        assert_eq!(site("192.0.2.77"), "192.0.2.0");
        assert_eq!(site("::ffff:192.0.2.77"), "192.0.2.0");
    }
}
