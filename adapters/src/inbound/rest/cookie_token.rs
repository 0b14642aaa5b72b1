//! Tokens in cookies.
//!
//! A browser sends a cookie with every request to its server, even if a malicious page causes the request
//! (cross-site request forgery, CSRF). So a cookie is read only if the request's headers show that an allowed
//! page caused it. The `Origin` header (RFC 6454, section 7) contains the origin of the page.
//! `Sec-Fetch-Site: same-origin` (Fetch Metadata) means that this server served the page.

use std::str::FromStr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use http::HeaderMap;
use http::header::COOKIE;

use super::cors::{Cors, RequestOrigin};

/// The name of the cookie with the token (RFC 6265, section 4.1.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CookieName(String);

/// The text is not a [`CookieName`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the name of a cookie has letters, digits, hyphens, underscores and dots")]
pub struct InvalidCookieName;

impl FromStr for CookieName {
    type Err = InvalidCookieName;

    fn from_str(raw: &str) -> Result<Self, InvalidCookieName> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let is_valid = !raw.is_empty() && raw.bytes().all(is_plain);
        if is_valid { Ok(Self(raw.to_owned())) } else { Err(InvalidCookieName) }
    }
}

/// The token from the cookie of a request, stored as an extension of the request. A token elsewhere in the
/// request takes precedence.
#[derive(Clone)]
pub(crate) struct CookieToken(pub(crate) Arc<str>);

/// The cookie to read, and the settings that determine which pages are allowed.
struct CookieRule {
    name: CookieName,
    cors: Cors,
}

/// Adds a layer that reads the cookie of this name from requests of allowed pages. Without a name, no cookie
/// is read.
pub fn with_cookie_tokens(router: Router, name: Option<&CookieName>, cors: &Cors) -> Router {
    let Some(name) = name else { return router };
    let rule = Arc::new(CookieRule { name: name.clone(), cors: cors.clone() });
    router.layer(from_fn_with_state(rule, read_cookie))
}

async fn read_cookie(
    State(rule): State<Arc<CookieRule>>,
    mut request: Request,
    next: Next,
) -> Response {
    if let Some(token) = rule.token(request.headers()) {
        request.extensions_mut().insert(token);
    }
    next.run(request).await
}

impl CookieRule {
    fn token(&self, headers: &HeaderMap) -> Option<CookieToken> {
        let is_allowed = match self.cors.origin_of(headers) {
            RequestOrigin::Allowed => true,
            // Browsers send no `Origin` with the GET requests of a server's own pages.
            RequestOrigin::Missing => is_same_origin(headers),
            RequestOrigin::NotAllowed => false,
        };
        is_allowed.then(|| self.find_cookie(headers)).flatten()
    }

    /// `None` if the request has no such cookie, or several: another host of the domain may have set one of
    /// them.
    fn find_cookie(&self, headers: &HeaderMap) -> Option<CookieToken> {
        let texts = headers.get_all(COOKIE).iter().filter_map(|header| header.to_str().ok());
        let pairs =
            texts.flat_map(|header| header.split(';')).filter_map(|pair| pair.split_once('='));
        let mut values = pairs.filter(|(name, _)| name.trim() == self.name.0);
        let (_, value) = values.next()?;
        values.next().is_none().then(|| CookieToken(value.trim().trim_matches('"').into()))
    }
}

fn is_same_origin(headers: &HeaderMap) -> bool {
    headers.get("sec-fetch-site").is_some_and(|site| site == "same-origin")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(headers: &[(&'static str, &str)]) -> Option<String> {
        let rule = CookieRule {
            name: "jwt".parse().unwrap(),
            cors: Cors {
                origins: vec!["https://app.example.org".parse().unwrap()],
                ..Cors::default()
            },
        };
        let mut all = HeaderMap::new();
        all.insert("host", "belfry.example.org".parse().unwrap());
        for (name, value) in headers {
            all.append(*name, value.parse().unwrap());
        }
        rule.token(&all).map(|CookieToken(token)| token.to_string())
    }

    #[test]
    fn cookie_is_read_only_if_an_allowed_page_caused_the_request() {
        let cookie = ("cookie", "a=1; jwt=t.o.k; b=2");
        for page in [
            ("origin", "https://app.example.org"),
            ("origin", "https://belfry.example.org"),
            ("sec-fetch-site", "same-origin"),
        ] {
            assert_eq!(token(&[cookie, page]).as_deref(), Some("t.o.k"), "{page:?}");
        }
        assert_eq!(token(&[cookie]), None, "the page is unknown");
        for page in [
            ("origin", "https://evil.example.org"),
            ("origin", "null"),
            ("sec-fetch-site", "same-site"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "none"),
        ] {
            assert_eq!(token(&[cookie, page]), None, "{page:?}");
        }
        let foreign = [cookie, ("origin", "https://evil.org"), ("sec-fetch-site", "same-origin")];
        assert_eq!(token(&foreign), None);
    }

    #[test]
    fn single_cookie_of_the_name_is_read_and_several_are_ignored() {
        let page = ("origin", "https://app.example.org");
        let read = |cookies: &[&str]| {
            let cookies = cookies.iter().map(|cookie| ("cookie", *cookie));
            token(&cookies.chain([page]).collect::<Vec<_>>())
        };
        assert_eq!(read(&["jwt=\"a\""]).as_deref(), Some("a"));
        assert_eq!(read(&["b=1", "jwt=a"]).as_deref(), Some("a"));
        assert_eq!(read(&["jwt=a; jwt=b"]), None);
        assert_eq!(read(&["jwt=a", "jwt=b"]), None);
        assert_eq!(read(&["jwtx=a; xjwt=b"]), None);
    }

    #[test]
    fn malformed_name_is_rejected() {
        for raw in ["", "a b", "a=b", "a;b", "ü"] {
            assert!(raw.parse::<CookieName>().is_err(), "{raw}");
        }
    }
}
