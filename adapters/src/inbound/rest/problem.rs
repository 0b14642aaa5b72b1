//! How failure looks: `application/problem+json` (RFC 9457), by one table.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use belfry_application::access::AuthError;
use belfry_application::ports::PortError;
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use tracing::{error, warn};
use utoipa::ToSchema;

use crate::wire::InvalidForm;

/// The media type of every failure.
pub(super) const PROBLEM_JSON: &str = "application/problem+json";

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    JsonMalformed,
    BodyUnreadable,
    QueryInvalid,
    CursorInvalid,
    IdInvalid,
    IdempotencyKeyInvalid,
    TokenMissing,
    TokenInvalid,
    TokenExpired,
    TokenRevoked,
    TokenOfOtherUser,
    ScopeMissing,
    NotFound,
    RouteUnknown,
    MethodNotAllowed,
    NotificationDiffers,
    NotificationGone,
    BodyTooLarge,
    ContentTypeUnsupported,
    BodyInvalid,
    IdempotencyKeyReused,
    TooManyRequests,
    Internal,
    Unavailable,
    TimedOut,
}

impl Kind {
    /// The table: status, code for programs, title for people.
    pub(super) const fn row(self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Self::JsonMalformed => (S::BAD_REQUEST, "json_malformed", "The body is not JSON"),
            Self::BodyUnreadable => (S::BAD_REQUEST, "body_unreadable", "The body was cut off"),
            Self::QueryInvalid => (S::BAD_REQUEST, "query_invalid", "The query is not valid"),
            Self::CursorInvalid => (S::BAD_REQUEST, "cursor_invalid", "The cursor is not valid"),
            Self::IdInvalid => (S::BAD_REQUEST, "id_invalid", "The id in the path is not valid"),
            Self::IdempotencyKeyInvalid => {
                (S::BAD_REQUEST, "idempotency_key_invalid", "The idempotency key is not valid")
            }
            Self::TokenMissing => (S::UNAUTHORIZED, "token_missing", "A token is needed"),
            Self::TokenInvalid => (S::UNAUTHORIZED, "token_invalid", "The token is not valid"),
            Self::TokenExpired => (S::UNAUTHORIZED, "token_expired", "The token has expired"),
            Self::TokenRevoked => (S::UNAUTHORIZED, "token_revoked", "The token was revoked"),
            Self::TokenOfOtherUser => {
                (S::UNAUTHORIZED, "token_of_other_user", "The token is of another user")
            }
            Self::ScopeMissing => (S::FORBIDDEN, "scope_missing", "The token does not allow this"),
            Self::NotFound => (S::NOT_FOUND, "not_found", "There is no such notification"),
            Self::RouteUnknown => (S::NOT_FOUND, "route_unknown", "There is nothing at this path"),
            Self::MethodNotAllowed => (
                S::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "The method is not one of this path's",
            ),
            Self::NotificationDiffers => {
                (S::CONFLICT, "notification_differs", "There is another notification with this id")
            }
            Self::NotificationGone => {
                (S::GONE, "notification_gone", "The notification has been deleted since")
            }
            Self::BodyTooLarge => (S::PAYLOAD_TOO_LARGE, "body_too_large", "The body is too large"),
            Self::ContentTypeUnsupported => (
                S::UNSUPPORTED_MEDIA_TYPE,
                "content_type_unsupported",
                "The body must be application/json",
            ),
            Self::BodyInvalid => {
                (S::UNPROCESSABLE_ENTITY, "body_invalid", "The body does not say what is needed")
            }
            Self::IdempotencyKeyReused => (
                S::UNPROCESSABLE_ENTITY,
                "idempotency_key_reused",
                "The idempotency key was used for another request",
            ),
            Self::TooManyRequests => (
                S::TOO_MANY_REQUESTS,
                "too_many_requests",
                "There are too many requests of this caller",
            ),
            Self::Internal => (S::INTERNAL_SERVER_ERROR, "internal", "This went wrong on our side"),
            Self::Unavailable => {
                (S::SERVICE_UNAVAILABLE, "unavailable", "This is not possible at the moment")
            }
            Self::TimedOut => (S::SERVICE_UNAVAILABLE, "timed_out", "This took too long"),
        }
    }

    pub(super) const fn status(self) -> StatusCode {
        self.row().0
    }

    pub(super) const fn code(self) -> &'static str {
        self.row().1
    }

    pub(super) const fn title(self) -> &'static str {
        self.row().2
    }

    /// The header that a client needs to go on.
    pub(super) fn header(self) -> Option<(HeaderName, HeaderValue)> {
        let of = |name, text| Some((name, HeaderValue::from_static(text)));
        match self {
            // Without an error code where no token was shown (RFC 6750, 3.1).
            Self::TokenMissing => of(WWW_AUTHENTICATE, r#"Bearer realm="belfry""#),
            Self::TokenInvalid
            | Self::TokenExpired
            | Self::TokenRevoked
            | Self::TokenOfOtherUser => of(WWW_AUTHENTICATE, r#"Bearer error="invalid_token""#),
            Self::ScopeMissing => of(WWW_AUTHENTICATE, r#"Bearer error="insufficient_scope""#),
            Self::Unavailable | Self::TimedOut | Self::TooManyRequests => of(RETRY_AFTER, "1"),
            _ => None,
        }
    }
}

/// One failure, on its way to the client.
#[derive(Debug)]
pub(super) struct Problem {
    kind: Kind,
    detail: String,
    errors: Vec<FieldError>,
    /// The scope that is missing.
    scope: Option<Arc<str>>,
    /// In how many seconds to try again, where it is known.
    retry_after: Option<u64>,
    /// What stood behind it, for the log only.
    cause: Option<PortError>,
}

/// What is wrong with one place of the body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct FieldError {
    /// Where: a JSON Pointer as a URI fragment (RFC 6901, 6).
    #[schema(example = "#/notifications/3/title")]
    pub(super) pointer: String,
    /// What is wrong there.
    #[schema(example = "a title must not be blank")]
    pub(super) detail: String,
}

impl FieldError {
    /// That field of the document has that problem.
    pub(super) fn at(field: impl fmt::Display, detail: impl fmt::Display) -> Self {
        Self { pointer: format!("#/{field}"), detail: detail.to_string() }
    }
}

impl From<InvalidForm> for Problem {
    fn from(invalid: InvalidForm) -> Self {
        FieldError::at(invalid.field, invalid.problem).into()
    }
}

impl From<FieldError> for Problem {
    fn from(error: FieldError) -> Self {
        Self::body(vec![error])
    }
}

impl Problem {
    pub(super) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { kind, detail, errors: Vec::new(), scope: None, retry_after: None, cause: None }
    }

    fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        let named = self.scope.as_ref().and_then(|scope| {
            let text = format!(r#"Bearer error="insufficient_scope", scope="{scope}""#);
            HeaderValue::try_from(text).ok()
        });
        let wait = self.retry_after.map(|seconds| (RETRY_AFTER, seconds.into()));
        named.map(|value| (WWW_AUTHENTICATE, value)).or(wait).or_else(|| self.kind.header())
    }

    /// A caller who asks for more than they may, and may ask again in a while. The header has whole
    /// seconds: rounded up, as asking too early would be in vain.
    pub(super) fn too_many_requests(wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        Self { retry_after: Some(seconds.max(1)), ..Self::from(Kind::TooManyRequests) }
    }

    /// A body that is JSON and does not say what is needed, and every place where it does not.
    pub(super) fn body(errors: Vec<FieldError>) -> Self {
        let detail = match &*errors {
            [only] => format!("{}: {}", only.pointer, only.detail),
            many => format!("{} places are wrong", many.len()),
        };
        Self { errors, ..Self::new(Kind::BodyInvalid, detail) }
    }
}

impl From<Kind> for Problem {
    fn from(kind: Kind) -> Self {
        Self::new(kind, kind.title())
    }
}

impl From<PortError> for Problem {
    fn from(cause: PortError) -> Self {
        let kind = match &cause {
            PortError::Unavailable(_) | PortError::Failed(_) => Kind::Unavailable,
            // Whatever a client sends has been checked here: what a port refuses is our mistake.
            PortError::Rejected(_) => Kind::Internal,
        };
        Self { cause: Some(cause), ..Self::from(kind) }
    }
}

impl From<AuthError> for Problem {
    fn from(refusal: AuthError) -> Self {
        let detail = refusal.to_string();
        let kind = match refusal {
            AuthError::TokenMissing => Kind::TokenMissing,
            AuthError::TokenInvalid => Kind::TokenInvalid,
            AuthError::TokenExpired => Kind::TokenExpired,
            AuthError::TokenRevoked => Kind::TokenRevoked,
            AuthError::OtherUser => Kind::TokenOfOtherUser,
            AuthError::ScopeMissing(scope) => {
                return Self { scope: Some(scope), ..Self::new(Kind::ScopeMissing, detail) };
            }
            AuthError::Unavailable(cause) => return Self { detail, ..Self::from(cause) },
        };
        Self::new(kind, detail)
    }
}

/// A failure in JSON (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemForm<'a> {
    /// Names the kind of failure: `urn:belfry:problem:` and the code.
    #[serde(rename = "type")]
    #[schema(value_type = String, example = "urn:belfry:problem:body_invalid")]
    kind: String,
    /// The kind in words.
    #[schema(example = "The body does not say what is needed")]
    title: &'a str,
    /// The HTTP status code.
    #[schema(minimum = 400, maximum = 599, example = 422)]
    status: u16,
    /// This very failure in words. Never repeats what was sent.
    #[schema(example = "#/title: a title must not be blank")]
    detail: &'a str,
    /// The kind as a stable word for programs.
    #[schema(example = "body_invalid")]
    code: &'a str,
    /// Every place of the body that is wrong.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(required = false)]
    errors: &'a [FieldError],
}

impl<'a> From<&'a Problem> for ProblemForm<'a> {
    fn from(problem: &'a Problem) -> Self {
        let (status, code, title) = problem.kind.row();
        Self {
            kind: format!("urn:belfry:problem:{code}"),
            title,
            status: status.as_u16(),
            detail: &problem.detail,
            code,
            errors: &problem.errors,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        match &self.cause {
            Some(cause @ PortError::Rejected(_)) => {
                error!(error = cause as &dyn Error, "request failed");
            }
            Some(cause) => warn!(error = cause as &dyn Error, "request not possible now"),
            None => {}
        }
        let body = serde_json::to_vec(&ProblemForm::from(&self))
            .expect("texts and numbers always serialize");
        let content_type = [(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON))];
        let mut response = (self.kind.status(), content_type, body).into_response();
        response.headers_mut().extend(self.header());
        response
    }
}

#[cfg(test)]
mod tests {
    use belfry_application::ports::Scopes;

    use super::*;

    #[test]
    fn a_refusal_keeps_its_code() {
        let down = || PortError::unavailable("down");
        for refusal in [
            AuthError::TokenMissing,
            AuthError::TokenInvalid,
            AuthError::TokenExpired,
            AuthError::OtherUser,
            AuthError::TokenRevoked,
            AuthError::ScopeMissing(Scopes::WRITE.into()),
            AuthError::Unavailable(down()),
        ] {
            let code = refusal.code();
            assert_eq!(Problem::from(refusal).kind.code(), code);
        }
    }

    #[test]
    fn the_header_of_a_missing_scope_names_it() {
        let missing = Problem::from(AuthError::ScopeMissing(Scopes::WRITE.into()));
        let (name, value) = missing.header().unwrap();
        assert_eq!(name, WWW_AUTHENTICATE);
        assert!(value.to_str().unwrap().contains(Scopes::WRITE));
    }

    #[test]
    fn whoever_asks_too_often_is_told_when_it_is_not_too_early() {
        for (millis, seconds) in [(0, "1"), (1, "1"), (1_000, "1"), (1_001, "2")] {
            let problem = Problem::too_many_requests(Duration::from_millis(millis));
            let (name, value) = problem.header().unwrap();
            assert_eq!((name, value.to_str().unwrap()), (RETRY_AFTER, seconds));
        }
    }

    #[test]
    fn what_stood_behind_a_failure_stays_here() {
        let problem = Problem::from(PortError::rejected("password authentication failed"));
        let json = serde_json::to_string(&ProblemForm::from(&problem)).unwrap();
        assert!(!json.contains("password"), "{json}");
    }
}
