//! JSON request bodies, with the `Idempotency-Key` header of their request.

use std::fmt::Write as _;

use axum::body::HttpBody as _;
use axum::extract::rejection::{BytesRejection, FailedToBufferBody};
use axum::extract::{FromRef, FromRequest, Request};
use belfry_application::ports::IdempotencyKey;
use belfry_domain::UserId;
use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use sha2::{Digest, Sha256};
use tokio::sync::OwnedSemaphorePermit;
use utoipa::IntoParams;

use super::headers::IDEMPOTENCY_KEY;
use super::limits::RequestLimits;
use super::problem::{Problem, ProblemKind};
use crate::limits::Limit;

/// Describes the `Idempotency-Key` header in the OpenAPI contract.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only the derived description is used")]
pub(super) struct IdempotencyHeader {
    /// Identifies this request. A request that is sent again with the same key takes effect once.
    #[param(rename = "Idempotency-Key", max_length = 200, example = "order-7-shipped")]
    key: Option<String>,
}

/// A body with a JSON content type, within the size limit. It is not parsed yet.
pub(super) struct JsonBody {
    pub(super) bytes: Bytes,
    idempotency: Option<Idempotency>,
    /// The reserved memory. Held until the response is ready, because the texts of the body are in memory
    /// until then.
    _reserved: OwnedSemaphorePermit,
}

/// The idempotency key of a request, with a fingerprint of the request.
struct Idempotency {
    key: String,
    /// Hash of the request, to detect another request with the same key and different content.
    fingerprint: String,
}

impl JsonBody {
    /// The idempotency key, which is valid for `caller` only. `None` if the request has no such header.
    pub(super) fn idempotency_key(
        &self,
        caller: &UserId,
    ) -> Result<Option<IdempotencyKey>, Problem> {
        let Some(Idempotency { key, fingerprint }) = &self.idempotency else {
            return Ok(None);
        };
        IdempotencyKey::parse(caller.clone(), key, fingerprint.as_str())
            .map(Some)
            .map_err(|error| Problem::new(ProblemKind::IdempotencyKeyInvalid, error.to_string()))
    }
}

impl<S: Send + Sync> FromRequest<S> for JsonBody
where
    RequestLimits: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !has_json_content_type(request.headers()) {
            return Err(ProblemKind::ContentTypeUnsupported.into());
        }
        let key = idempotency_key_header(request.headers())?;
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        let length = request.body().size_hint().exact();
        let reserved = RequestLimits::from_ref(state).reserve_body(length).await;
        let bytes =
            Bytes::from_request(request, state).await.map_err(|rejection| problem(&rejection))?;
        let idempotency = key.map(|key| {
            let fingerprint = fingerprint([method.as_str().as_bytes(), path.as_bytes(), &bytes]);
            Idempotency { key, fingerprint }
        });
        Ok(Self { bytes, idempotency, _reserved: reserved })
    }
}

/// Whether the type is `application/json` or has the suffix `+json` (RFC 6839, 3.1).
fn has_json_content_type(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = content_type.and_then(|text| text.split(';').next()).unwrap_or_default();
    match essence.trim().to_ascii_lowercase().strip_prefix("application/") {
        Some(subtype) => subtype == "json" || subtype.ends_with("+json"),
        None => false,
    }
}

/// The `Idempotency-Key` header, which must occur at most once.
fn idempotency_key_header(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let invalid = |detail| Problem::new(ProblemKind::IdempotencyKeyInvalid, detail);
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(_), Some(_)) => Err(invalid("the request has several idempotency keys")),
        (Some(value), None) => match value.to_str() {
            Ok(text) => Ok(Some(text.to_owned())),
            Err(_) => Err(invalid("an idempotency key must consist of printable ASCII characters")),
        },
    }
}

/// SHA-256 of the parts, in hex. The length of each part is hashed before it, so that moving bytes from one part
/// to the next changes the hash.
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

fn problem(rejection: &BytesRejection) -> Problem {
    match rejection {
        BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)) => {
            Limit::BodySize.record_exceeded();
            ProblemKind::BodyTooLarge.into()
        }
        _ => ProblemKind::BodyUnreadable.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_content_types_are_accepted() {
        let is_json = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, text.parse().unwrap());
            has_json_content_type(&headers)
        };
        for text in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/json;charset=UTF-8",
            "application/vnd.shop.v2+json",
        ] {
            assert!(is_json(text), "{text}");
        }
        for text in [
            "",
            "text/plain",
            "json",
            "application/jsonp",
            "text/json",
            "application/x-www-form-urlencoded",
        ] {
            assert!(!is_json(text), "{text}");
        }
        assert!(!has_json_content_type(&HeaderMap::new()));
    }

    #[test]
    fn fingerprints_of_different_requests_differ() {
        let first = fingerprint([b"POST", b"/v1/notifications", b"{}"]);
        assert_eq!(first, fingerprint([b"POST", b"/v1/notifications", b"{}"]));
        assert_eq!(first.len(), 64);
        for other in [
            [&b"PUT"[..], b"/v1/notifications", b"{}"],
            [b"POST", b"/v1/notification", b"s{}"],
            [b"POST", b"/v1/notifications", b"{} "],
        ] {
            assert_ne!(first, fingerprint(other));
        }
    }
}
