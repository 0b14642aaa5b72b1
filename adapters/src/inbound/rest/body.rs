//! A request's body, and the header that makes it take effect once.

use std::fmt::Write as _;

use axum::extract::rejection::{BytesRejection, FailedToBufferBody};
use axum::extract::{FromRequest, Request};
use belfry_application::ports::IdempotencyKey;
use belfry_domain::UserId;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName};
use sha2::{Digest, Sha256};
use utoipa::IntoParams;

use super::problem::{Kind, Problem};
use crate::limits::Limit;

pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The header, as the contract tells of it.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "nothing but the contract reads it")]
pub(super) struct OnceHeader {
    /// Names this request: sent again with the same key, it takes effect once.
    #[param(rename = "Idempotency-Key", max_length = 200, example = "order-7-shipped")]
    key: Option<String>,
}

/// A body that says it is JSON, within the size that is allowed.
pub(super) struct Posted {
    pub(super) body: Bytes,
    once: Option<Once>,
}

struct Once {
    key: String,
    fingerprint: String,
}

impl Posted {
    /// The key under which `caller` wants this request to take effect once, if any.
    pub(super) fn once(&self, caller: &UserId) -> Result<Option<IdempotencyKey>, Problem> {
        let Some(Once { key, fingerprint }) = &self.once else {
            return Ok(None);
        };
        IdempotencyKey::parse(caller.clone(), key, fingerprint.as_str())
            .map(Some)
            .map_err(|problem| Problem::new(Kind::IdempotencyKeyInvalid, problem.to_string()))
    }
}

impl<S: Send + Sync> FromRequest<S> for Posted {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !says_it_is_json(request.headers()) {
            return Err(Kind::ContentTypeUnsupported.into());
        }
        let key = idempotency_key(request.headers())?;
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        let body =
            Bytes::from_request(request, state).await.map_err(|rejection| unread(&rejection))?;
        let once = key.map(|key| {
            let fingerprint = fingerprint([method.as_str().as_bytes(), path.as_bytes(), &body]);
            Once { key, fingerprint }
        });
        Ok(Self { body, once })
    }
}

/// `application/json`, or a type that is JSON underneath (RFC 6839, 3.1).
fn says_it_is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = content_type.and_then(|text| text.split(';').next()).unwrap_or_default();
    match essence.trim().to_ascii_lowercase().strip_prefix("application/") {
        Some(subtype) => subtype == "json" || subtype.ends_with("+json"),
        None => false,
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let invalid = |detail| Problem::new(Kind::IdempotencyKeyInvalid, detail);
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(_), Some(_)) => Err(invalid("there is more than one")),
        (Some(value), None) => match value.to_str() {
            Ok(text) => Ok(Some(text.to_owned())),
            Err(_) => Err(invalid("an idempotency key is made of printable ASCII characters")),
        },
    }
}

/// Stands for what a request asks for. Each part's length goes in before it, so that no two lists of
/// parts give the same bytes.
fn fingerprint(parts: [&[u8]; 3]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unread(rejection: &BytesRejection) -> Problem {
    match rejection {
        BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)) => {
            Limit::BodySize.record_exceeded();
            Kind::BodyTooLarge.into()
        }
        _ => Kind::BodyUnreadable.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_several_names() {
        let says = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, text.parse().unwrap());
            says_it_is_json(&headers)
        };
        for text in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/json;charset=UTF-8",
            "application/vnd.shop.v2+json",
        ] {
            assert!(says(text), "{text}");
        }
        for text in [
            "",
            "text/plain",
            "json",
            "application/jsonp",
            "text/json",
            "application/x-www-form-urlencoded",
        ] {
            assert!(!says(text), "{text}");
        }
        assert!(!says_it_is_json(&HeaderMap::new()));
    }

    #[test]
    fn another_request_has_another_fingerprint() {
        let one = fingerprint([b"POST", b"/v1/notifications", b"{}"]);
        assert_eq!(one, fingerprint([b"POST", b"/v1/notifications", b"{}"]));
        assert_eq!(one.len(), 64);
        for other in [
            [&b"PUT"[..], b"/v1/notifications", b"{}"],
            [b"POST", b"/v1/notification", b"s{}"],
            [b"POST", b"/v1/notifications", b"{} "],
        ] {
            assert_ne!(one, fingerprint(other));
        }
    }
}
