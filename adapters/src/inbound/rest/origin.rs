//! Origins of web pages (RFC 6454), as browsers send them and as operators allow them.

use std::net::Ipv6Addr;
use std::str::FromStr;

/// An origin that may call this server: `https://app.example.org`, `capacitor://localhost`, or a pattern
/// such as `https://*.preview.example.org`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedOrigin {
    /// In lower case.
    scheme: String,
    host: AllowedHost,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum AllowedHost {
    /// In lower case.
    Exact(String),
    /// In lower case and with the leading dot: one or more labels must come before it.
    Below(String),
}

/// A text is not an [`AllowedOrigin`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOrigin {
    /// No scheme and host, or more than these and a port.
    #[error(
        "an origin is a scheme, a host and perhaps a port, without a path: https://app.example.org, \
         http://localhost:5173, capacitor://localhost"
    )]
    Malformed,
    /// `null`
    #[error(
        "null is the origin of every sandboxed page and of local files, so it would allow any page; \
         serve the page from an origin of its own"
    )]
    Null,
    /// A `*` in another place.
    #[error(
        "* stands for the leftmost labels of a host, as in https://*.preview.example.org, and for \
         nothing else; name the origins"
    )]
    Wildcard,
}

impl FromStr for AllowedOrigin {
    type Err = InvalidOrigin;

    fn from_str(raw: &str) -> Result<Self, InvalidOrigin> {
        if raw.eq_ignore_ascii_case("null") {
            return Err(InvalidOrigin::Null);
        }
        let Some((before, after)) = raw.split_once('*') else {
            let origin = Origin::parse(raw).ok_or(InvalidOrigin::Malformed)?;
            let host = AllowedHost::Exact(origin.host.to_ascii_lowercase());
            return Ok(Self::new(&origin, host));
        };
        if !before.ends_with("://") || !after.starts_with('.') || after.contains('*') {
            return Err(InvalidOrigin::Wildcard);
        }
        // An origin of that pattern, to be checked like any other.
        let sample = format!("{before}any{after}");
        let origin = Origin::parse(&sample).ok_or(InvalidOrigin::Malformed)?;
        let below = origin.host.strip_prefix("any").filter(|it| has_labels(&it[1..]));
        let below = below.ok_or(InvalidOrigin::Malformed)?;
        Ok(Self::new(&origin, AllowedHost::Below(below.to_ascii_lowercase())))
    }
}

impl AllowedOrigin {
    fn new(origin: &Origin<'_>, host: AllowedHost) -> Self {
        Self { scheme: origin.scheme.to_ascii_lowercase(), host, port: origin.port }
    }

    /// Whether this allows `origin`.
    pub(super) fn matches(&self, origin: &Origin<'_>) -> bool {
        self.scheme.eq_ignore_ascii_case(origin.scheme)
            && self.port == origin.port
            && self.host.matches(origin.host)
    }
}

impl AllowedHost {
    fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(one) => one.eq_ignore_ascii_case(host),
            Self::Below(suffix) => {
                let labels = host.len().checked_sub(suffix.len()).map(|at| host.split_at(at));
                labels.is_some_and(|(labels, rest)| {
                    rest.eq_ignore_ascii_case(suffix) && has_labels(labels)
                })
            }
        }
    }
}

/// Whether this is one or more DNS labels.
fn has_labels(host: &str) -> bool {
    host.split('.').all(|label| !label.is_empty())
}

/// An origin as a browser sends it, its default port left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Origin<'a> {
    scheme: &'a str,
    host: &'a str,
    port: Option<u16>,
}

impl<'a> Origin<'a> {
    /// `None` for `null` and for whatever is not a scheme, a host and perhaps a port.
    pub(super) fn parse(raw: &'a str) -> Option<Self> {
        let (scheme, authority) = raw.split_once("://")?;
        if !is_scheme(scheme) {
            return None;
        }
        let (host, port) = match authority {
            // Pages from files, in those browsers and web views that do not send `null` for them.
            "" if scheme.eq_ignore_ascii_case("file") => ("", None),
            _ => host_and_port(authority)?,
        };
        Some(Self { scheme, host, port: port.filter(|port| Some(*port) != default_port(scheme)) })
    }

    /// Whether a page of this origin came from the server that it now calls by `host`, a `Host` header.
    ///
    /// The scheme is not compared: behind a proxy that terminates TLS only the browser knows it. Schemes
    /// other than http and https are never served from here.
    pub(super) fn is_served_by(&self, host: &str) -> bool {
        let Some(default) = default_port(self.scheme) else { return false };
        host_and_port(host).is_some_and(|(name, port)| {
            self.host.eq_ignore_ascii_case(name)
                && self.port.unwrap_or(default) == port.unwrap_or(default)
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

/// `example.org`, `example.org:8080`, `[::1]:8080`. Browsers send names in their ASCII form.
fn host_and_port(authority: &str) -> Option<(&str, Option<u16>)> {
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

/// Digits only: `u16` would also take a sign.
fn port_number(digits: &str) -> Option<u16> {
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(pattern: &str, sent: &str) -> bool {
        let allowed: AllowedOrigin =
            pattern.parse().unwrap_or_else(|error| panic!("{pattern}: {error}"));
        Origin::parse(sent).is_some_and(|sent| allowed.matches(&sent))
    }

    #[test]
    fn allowed_origin_matches_scheme_host_and_port() {
        for same in [
            "https://app.example.org",
            "http://localhost:5173",
            "http://[::1]:8080",
            "capacitor://localhost",
            "ionic://localhost",
            "tauri://localhost",
            "app://-",
            "app://obsidian.md",
            "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
            "moz-extension://0c8e2b5c-7a1d-4d57-9b44-bd3f1b5d2f5e",
            "file://",
        ] {
            assert!(allows(same, same), "{same}");
        }
        for (allowed, sent) in [
            ("https://app.example.org", "http://app.example.org"),
            ("https://app.example.org", "https://app.example.org:8443"),
            ("https://app.example.org:8443", "https://app.example.org"),
            ("https://app.example.org", "https://example.org"),
            ("https://app.example.org", "https://app.example.org.evil.org"),
            ("capacitor://localhost", "ionic://localhost"),
            ("capacitor://localhost", "http://localhost"),
            ("https://app.example.org", "null"),
            ("https://app.example.org", "https://app.example.org/"),
            ("https://app.example.org", "https://app.example.org@evil.org"),
        ] {
            assert!(!allows(allowed, sent), "{allowed} {sent}");
        }
    }

    #[test]
    fn case_and_default_port_make_no_difference() {
        for (allowed, sent) in [
            ("https://app.example.org:443", "https://app.example.org"),
            ("https://app.example.org", "https://app.example.org:443"),
            ("http://app.example.org:80", "http://app.example.org"),
            ("HTTPS://App.Example.org", "https://app.example.org"),
            ("capacitor://localhost", "Capacitor://LOCALHOST"),
            ("https://*.Example.org:443", "https://a.example.ORG"),
        ] {
            assert!(allows(allowed, sent), "{allowed} {sent}");
        }
        assert!(!allows("https://app.example.org", "https://app.example.org:80"));
        assert!(!allows("app://x:443", "app://x"), "only http and https have default ports");
    }

    #[test]
    fn pattern_matches_labels_below_its_host_and_not_the_host_itself() {
        let pattern = "https://*.preview.example.org";
        for sent in ["https://pr-7.preview.example.org", "https://a.b.preview.example.org"] {
            assert!(allows(pattern, sent), "{sent}");
        }
        for sent in [
            "https://preview.example.org",
            "https://.preview.example.org",
            "https://a..preview.example.org",
            "https://.a.preview.example.org",
            "https://evilpreview.example.org",
            "https://a.preview.example.org.evil.org",
            "https://a.preview.example.org:8443",
            "http://a.preview.example.org",
            "https://evil.org/.preview.example.org",
        ] {
            assert!(!allows(pattern, sent), "{sent}");
        }
        assert!(allows("http://*.localhost:3000", "http://a.localhost:3000"));
    }

    #[test]
    fn wrong_origin_is_rejected_with_its_reason() {
        for raw in [
            "",
            "app.example.org",
            "https://",
            "https://app.example.org/",
            "https://a.b/c",
            "https://a.b?c",
            "https://a.b#c",
            "https://user@example.org",
            "https://a b",
            "https://a.b:",
            "https://a.b:+1",
            "https://a.b:65536",
            "https://a.b:1:2",
            "https://[::1",
            "https://[::g]",
            "https://::1",
            "https://[::1]x",
            "https://bücher.example",
            "1s://a.b",
            "https://*.",
            "https://*..example.org",
            "https://*.example.org/",
        ] {
            assert_eq!(raw.parse::<AllowedOrigin>(), Err(InvalidOrigin::Malformed), "{raw}");
        }
        for raw in ["*", "https://*", "https://a.*.example.org", "https://*.*.org", "*.example.org"]
        {
            assert_eq!(raw.parse::<AllowedOrigin>(), Err(InvalidOrigin::Wildcard), "{raw}");
        }
        for raw in ["https://a*.example.org", "https://*example.org", "https://example.org:*"] {
            assert_eq!(raw.parse::<AllowedOrigin>(), Err(InvalidOrigin::Wildcard), "{raw}");
        }
        assert_eq!("null".parse::<AllowedOrigin>(), Err(InvalidOrigin::Null));
    }

    #[test]
    fn page_is_served_by_the_host_that_it_calls() {
        let own = |origin: &str, host: &str| Origin::parse(origin).unwrap().is_served_by(host);
        for (origin, host) in [
            ("http://belfry.example.org:8080", "belfry.example.org:8080"),
            ("https://belfry.example.org", "belfry.example.org"),
            ("https://belfry.example.org", "belfry.example.org:443"),
            ("https://belfry.example.org:443", "belfry.example.org"),
            ("http://[::1]:8080", "[::1]:8080"),
            ("http://belfry.example.org", "Belfry.Example.org"),
        ] {
            assert!(own(origin, host), "{origin} at {host}");
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
            assert!(!own(origin, host), "{origin} at {host}");
        }
    }
}
