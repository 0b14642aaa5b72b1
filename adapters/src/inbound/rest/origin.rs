//! Origins of web pages, as browsers send them (RFC 6454).
//!
//! Origins are not parsed as URLs: a URL parser also accepts paths, credentials and other spellings of a
//! host, none of which may be in an `Origin` header.

use std::net::Ipv6Addr;

/// An origin. The port is `None` if it is the scheme's default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Origin<'a> {
    pub(super) scheme: &'a str,
    pub(super) host: &'a str,
    pub(super) port: Option<u16>,
}

impl<'a> Origin<'a> {
    /// `None` for `null` and for any text that is not a scheme, a host and optionally a port.
    pub(super) fn parse(raw: &'a str) -> Option<Self> {
        let (scheme, authority) = raw.split_once("://")?;
        if !is_scheme(scheme) {
            return None;
        }
        let (host, port) = match authority {
            // The origin of pages from local files in some web views. Most browsers send `null` instead.
            "" if scheme.eq_ignore_ascii_case("file") => ("", None),
            _ => host_and_port(authority)?,
        };
        Some(Self { scheme, host, port: port.filter(|port| Some(*port) != default_port(scheme)) })
    }

    /// Whether the server that receives a request from a page of this origin also served the page. `host` is the
    /// `Host` header of the request.
    ///
    /// The scheme of the request is not compared: behind a proxy that terminates TLS, only the browser knows
    /// it. The server serves pages by http and https only, so the result for other schemes is `false`.
    pub(super) fn is_served_by(&self, host: &str) -> bool {
        let Some(default_port) = default_port(self.scheme) else { return false };
        host_and_port(host).is_some_and(|(name, port)| {
            self.host.eq_ignore_ascii_case(name)
                && self.port.unwrap_or(default_port) == port.unwrap_or(default_port)
        })
    }
}

fn is_scheme(scheme: &str) -> bool {
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

fn default_port(scheme: &str) -> Option<u16> {
    let is = |other: &str| scheme.eq_ignore_ascii_case(other);
    if is("http") {
        Some(80)
    } else if is("https") {
        Some(443)
    } else {
        None
    }
}

/// Splits an authority such as `example.org`, `example.org:8080` or `[::1]:8080`. Browsers send host names in
/// ASCII.
fn host_and_port(authority: &str) -> Option<(&str, Option<u16>)> {
    // The colons of an IPv6 address, which is in brackets, do not precede a port.
    let end_of_address = authority.find(']').map_or(0, |at| at + 1);
    let (host, port) = match authority[end_of_address..].find(':') {
        Some(at) => {
            let (host, port) = authority.split_at(end_of_address + at);
            (host, Some(port_number(&port[1..])?))
        }
        None => (authority, None),
    };
    let is_name = |host: &str| {
        !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b))
    };
    let is_host = match host.strip_prefix('[') {
        Some(address) => address.strip_suffix(']')?.parse::<Ipv6Addr>().is_ok(),
        None => is_name(host),
    };
    is_host.then_some((host, port))
}

/// Accepts digits only. Parsing as `u16` would also accept a sign.
fn port_number(digits: &str) -> Option<u16> {
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_is_served_by_the_host_that_it_calls() {
        let is_own = |origin: &str, host: &str| Origin::parse(origin).unwrap().is_served_by(host);
        for (origin, host) in [
            ("http://belfry.example.org:8080", "belfry.example.org:8080"),
            ("https://belfry.example.org", "belfry.example.org"),
            ("https://belfry.example.org", "belfry.example.org:443"),
            ("https://belfry.example.org:443", "belfry.example.org"),
            ("http://[::1]:8080", "[::1]:8080"),
            ("http://belfry.example.org", "Belfry.Example.org"),
        ] {
            assert!(is_own(origin, host), "{origin} at {host}");
        }
        for (origin, host) in [
            ("https://evil.example.org", "belfry.example.org"),
            ("http://belfry.example.org:8081", "belfry.example.org:8080"),
            ("http://belfry.example.org", "belfry.example.org:443"),
            ("https://belfry.example.org.evil.org", "belfry.example.org"),
            ("capacitor://localhost", "localhost"),
            ("file://", ""),
            ("file://belfry.example.org", "belfry.example.org"),
        ] {
            assert!(!is_own(origin, host), "{origin} at {host}");
        }
    }
}
