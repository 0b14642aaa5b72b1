//! Origins that operators allow, exactly or by a pattern.

use std::str::FromStr;

use super::origin::Origin;

/// An origin whose pages may call this server: `https://app.example.org`, `capacitor://localhost`, a pattern
/// such as `https://*.preview.example.org`, or `*` for any page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedOrigin(Allowed);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Allowed {
    Any,
    Matching {
        /// In lower case.
        scheme: String,
        host: AllowedHost,
        /// `None` is the scheme's default port.
        port: Option<u16>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum AllowedHost {
    /// In lower case.
    Exact(String),
    /// A suffix, in lower case and with the leading dot. One or more labels must precede it.
    Subdomains(String),
}

/// The text is not an [`AllowedOrigin`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOrigin {
    /// A host without a scheme.
    #[error("the scheme is missing: write https:// or http:// before the host")]
    NoScheme,
    /// A missing or malformed host, a malformed scheme or port, or another part such as a path.
    #[error(
        "an origin is a scheme, a host and optionally a port, without a path: https://app.example.org, \
         http://localhost:5173, capacitor://localhost"
    )]
    Malformed,
    /// The text `null`.
    #[error(
        "null is the origin of every sandboxed page and of local files, so it would allow any page; \
         serve the page from an origin of its own"
    )]
    Null,
    /// A `*` other than `*.` at the start of a host.
    #[error(
        "* stands for the leftmost labels of a host only, as in https://*.preview.example.org, or alone for \
         any page; list other origins one by one"
    )]
    Wildcard,
}

impl FromStr for AllowedOrigin {
    type Err = InvalidOrigin;

    fn from_str(raw: &str) -> Result<Self, InvalidOrigin> {
        if raw.eq_ignore_ascii_case("null") {
            return Err(InvalidOrigin::Null);
        }
        if raw == "*" {
            return Ok(Self(Allowed::Any));
        }
        if !raw.is_empty() && !raw.contains("://") {
            return Err(InvalidOrigin::NoScheme);
        }
        // An origin that is copied from a browser's address bar ends with a slash. Two slashes stay: `file://` ends with
        // them, and elsewhere they are an error.
        let raw = raw.strip_suffix('/').filter(|origin| !origin.ends_with('/')).unwrap_or(raw);
        let Some((before, after)) = raw.split_once('*') else {
            let origin = Origin::parse(raw).ok_or(InvalidOrigin::Malformed)?;
            let host = AllowedHost::Exact(origin.host.to_ascii_lowercase());
            return Ok(Self::new(&origin, host));
        };
        if !before.ends_with("://") || !after.starts_with('.') || after.contains('*') {
            return Err(InvalidOrigin::Wildcard);
        }
        // A host cannot contain `*`, so parse an example that matches the pattern.
        let example = format!("{before}any{after}");
        let origin = Origin::parse(&example).ok_or(InvalidOrigin::Malformed)?;
        let suffix =
            origin.host.strip_prefix("any").filter(|suffix| are_labels(&suffix[".".len()..]));
        let suffix = suffix.ok_or(InvalidOrigin::Malformed)?;
        Ok(Self::new(&origin, AllowedHost::Subdomains(suffix.to_ascii_lowercase())))
    }
}

impl AllowedOrigin {
    fn new(origin: &Origin<'_>, host: AllowedHost) -> Self {
        let scheme = origin.scheme.to_ascii_lowercase();
        Self(Allowed::Matching { scheme, host, port: origin.port })
    }

    /// Whether this is `*`, which matches any page, including pages with the origin `null`.
    pub fn is_any(&self) -> bool {
        self.0 == Allowed::Any
    }

    pub(super) fn matches(&self, origin: &Origin<'_>) -> bool {
        match &self.0 {
            Allowed::Any => true,
            Allowed::Matching { scheme, host, port } => {
                scheme.eq_ignore_ascii_case(origin.scheme)
                    && *port == origin.port
                    && host.matches(origin.host)
            }
        }
    }
}

impl AllowedHost {
    fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(allowed) => allowed.eq_ignore_ascii_case(host),
            Self::Subdomains(suffix) => {
                let split = host.len().checked_sub(suffix.len()).map(|at| host.split_at(at));
                split.is_some_and(|(labels, end)| {
                    end.eq_ignore_ascii_case(suffix) && are_labels(labels)
                })
            }
        }
    }
}

/// Whether `host` is a sequence of non-empty labels, separated by dots.
fn are_labels(host: &str) -> bool {
    host.split('.').all(|label| !label.is_empty())
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
        for origin in [
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
            assert!(allows(origin, origin), "{origin}");
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
    fn pattern_matches_subdomains_and_not_the_host_itself() {
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
    fn invalid_origin_is_rejected_with_its_reason() {
        for raw in [
            "",
            "https://",
            "https:///",
            "https://app.example.org//",
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
        ] {
            assert_eq!(raw.parse::<AllowedOrigin>(), Err(InvalidOrigin::Malformed), "{raw}");
        }
        for raw in ["https://*", "https://a.*.example.org", "https://*.*.org", "https://*:8080"] {
            assert_eq!(raw.parse::<AllowedOrigin>(), Err(InvalidOrigin::Wildcard), "{raw}");
        }
        for raw in ["https://a*.example.org", "https://*example.org", "https://example.org:*"] {
            assert_eq!(raw.parse::<AllowedOrigin>(), Err(InvalidOrigin::Wildcard), "{raw}");
        }
        for raw in ["app.example.org", "*.example.org", "localhost:5173", "//app.example.org"] {
            assert_eq!(raw.parse::<AllowedOrigin>(), Err(InvalidOrigin::NoScheme), "{raw}");
        }
        assert_eq!("null".parse::<AllowedOrigin>(), Err(InvalidOrigin::Null));
    }

    #[test]
    fn trailing_slash_makes_no_difference() {
        for allowed in ["https://app.example.org/", "https://app.example.org:443/"] {
            assert!(allows(allowed, "https://app.example.org"), "{allowed}");
        }
        assert!(allows("https://*.example.org/", "https://a.example.org"));
        assert!(!allows("https://app.example.org", "https://app.example.org/"), "not an origin");
    }

    #[test]
    fn asterisk_alone_matches_any_page() {
        for sent in ["https://app.example.org", "capacitor://localhost", "http://localhost:5173"] {
            assert!(allows("*", sent), "{sent}");
        }
        assert!("*".parse::<AllowedOrigin>().unwrap().is_any());
        assert!(!"https://*.example.org".parse::<AllowedOrigin>().unwrap().is_any());
    }
}
