use std::str::FromStr;
use std::sync::Arc;

use super::Link;

/// The schemes that the link of a new notification may have. A link without a scheme, such as a path of the
/// application, is always allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkSchemes(Arc<[LinkScheme]>);

/// The scheme of a URI in lower case (RFC 3986, 3.1), such as `https` or `myapp`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkScheme(Box<str>);

/// The text is not a [`LinkScheme`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a scheme is a letter followed by letters, digits, +, - and ., such as https or myapp, and not javascript, \
     vbscript or data"
)]
pub struct InvalidLinkScheme;

/// A link has a scheme that is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a link without a scheme, or with one of these is expected: {0}")]
pub struct LinkSchemeNotAllowed(Box<str>);

impl LinkSchemes {
    /// Allows these schemes.
    pub fn new(schemes: impl IntoIterator<Item = LinkScheme>) -> Self {
        Self(schemes.into_iter().collect())
    }

    /// Checks the scheme of a link.
    pub fn check(&self, link: &Link) -> Result<(), LinkSchemeNotAllowed> {
        let is_allowed =
            |scheme: &str| self.0.iter().any(|LinkScheme(allowed)| **allowed == *scheme);
        match link.scheme() {
            Some(scheme) if !is_allowed(&scheme.to_ascii_lowercase()) => {
                let allowed: Vec<_> = self.0.iter().map(|LinkScheme(scheme)| &**scheme).collect();
                Err(LinkSchemeNotAllowed(allowed.join(", ").into()))
            }
            _ => Ok(()),
        }
    }
}

impl Default for LinkSchemes {
    /// `https`, `http` and `mailto`.
    fn default() -> Self {
        Self::new(["https", "http", "mailto"].map(|scheme| LinkScheme(scheme.into())))
    }
}

impl FromStr for LinkScheme {
    type Err = InvalidLinkScheme;

    fn from_str(raw: &str) -> Result<Self, InvalidLinkScheme> {
        let scheme = raw.to_ascii_lowercase();
        if Link::is_scheme(&scheme) && !Link::runs_script(&scheme) {
            Ok(Self(scheme.into()))
        } else {
            Err(InvalidLinkScheme)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(schemes: &LinkSchemes, link: &str) -> bool {
        schemes.check(&Link::parse(link).unwrap()).is_ok()
    }

    #[test]
    fn only_listed_schemes_and_links_without_scheme_are_allowed() {
        let default = LinkSchemes::default();
        for link in [
            "https://example.org/",
            "HTTP://example.org",
            "mailto:ada@example.org",
            "/orders/7",
            "orders/7",
            "?order=7",
            "#7",
            "//example.org/7",
            "/a:b",
            "a/b:c",
            "7:x",
            ":",
            "ä:b",
        ] {
            assert!(allows(&default, link), "{link}");
        }
        for link in [
            "myapp:orders/7",
            "myapp://orders/7",
            "intent://scan/#Intent;scheme=zxing;end",
            "file:///etc/passwd",
            "blob:https://example.org/1",
            "ms-msdt:/id",
            "view-source:https://example.org",
            "tel:112",
            "a+b-c.d:x",
        ] {
            assert!(!allows(&default, link), "{link}");
        }
        let schemes = LinkSchemes::new(["https", "MyApp"].map(|scheme| scheme.parse().unwrap()));
        assert!(allows(&schemes, "myapp://orders/7") && allows(&schemes, "MYAPP:x"));
        assert!(!allows(&schemes, "http://example.org"));
    }

    #[test]
    fn scheme_must_be_valid_and_must_not_run_a_script() {
        for raw in ["https", "myapp", "com.example.app", "a+b-c.d2"] {
            assert!(raw.parse::<LinkScheme>().is_ok(), "{raw}");
        }
        for raw in ["", "7up", "my app", "https:", "https://", "ä", "*", "JavaScript", "data"] {
            assert_eq!(raw.parse::<LinkScheme>(), Err(InvalidLinkScheme), "{raw}");
        }
    }
}
