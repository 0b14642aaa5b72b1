//! The prefix of all public paths.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use axum::Router;

/// A prefix of all public paths, such as `/notify`, for proxies that route by path and cannot strip the
/// prefix. The default is the root: no prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BasePath(Arc<str>);

/// The text is not a [`BasePath`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a base path is empty, or starts with / and does not end with /, such as /notify or /api/notify; \
     segments consist of letters, digits, -, ., _ and ~, and are not . or .."
)]
pub struct InvalidBasePath;

impl BasePath {
    /// Whether there is no prefix.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The prefix without a trailing slash; empty for the root.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The prefix followed by `path`, which must start with a slash.
    pub fn join(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }

    /// Puts the routes under the prefix. Their handlers see paths without it.
    pub fn nest<S: Clone + Send + Sync + 'static>(&self, routes: Router<S>) -> Router<S> {
        if self.is_root() { routes } else { Router::new().nest(&self.0, routes) }
    }
}

impl FromStr for BasePath {
    type Err = InvalidBasePath;

    /// Percent-encoding is not accepted: if a proxy decodes and re-encodes a path, the prefix may no longer
    /// match.
    fn from_str(raw: &str) -> Result<Self, InvalidBasePath> {
        if raw.is_empty() {
            return Ok(Self::default());
        }
        let segments = raw.strip_prefix('/').ok_or(InvalidBasePath)?;
        if segments.split('/').all(is_segment) {
            Ok(Self(raw.into()))
        } else {
            Err(InvalidBasePath)
        }
    }
}

/// Whether the segment consists of unreserved characters (RFC 3986, 2.3) and is not `.` or `..`.
fn is_segment(segment: &str) -> bool {
    let is_unreserved = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    !matches!(segment, "" | "." | "..") && segment.bytes().all(is_unreserved)
}

impl fmt::Display for BasePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_path_is_empty_or_one_or_more_segments() {
        for raw in ["", "/notify", "/api/v2/notify", "/a-b_c.d~e", "/.well-known"] {
            assert_eq!(raw.parse::<BasePath>().unwrap().as_str(), raw);
        }
        for raw in [
            "/",
            "notify",
            "/notify/",
            "//notify",
            "/a//b",
            "/a/../b",
            "/.",
            "/a?b",
            "/a#b",
            "/{a}",
            "/*",
            "/a b",
            "/%61",
            "/ü",
            "https://example.org/notify",
        ] {
            assert_eq!(raw.parse::<BasePath>(), Err(InvalidBasePath), "{raw}");
        }
    }

    #[test]
    fn joined_paths_have_a_single_slash() {
        assert_eq!("/notify".parse::<BasePath>().unwrap().join("/v1"), "/notify/v1");
        assert_eq!(BasePath::default().join("/v1"), "/v1");
        assert!(BasePath::default().is_root());
    }
}
