//! Error responses: `application/problem+json` (RFC 9457).

mod kind;

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use belfry_application::access::AuthError;
use belfry_application::ports::PortError;
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue};
use serde::Serialize;
use tracing::{error, warn};
use utoipa::ToSchema;

use crate::wire::InvalidForm;
pub(super) use kind::ProblemKind;

/// The media type of every error response.
pub(super) const PROBLEM_JSON: &str = "application/problem+json";

/// A failed request, to be returned as an error response.
#[derive(Debug)]
pub(super) struct Problem {
    kind: ProblemKind,
    detail: String,
    errors: Vec<FieldError>,
    /// The scope that the token lacks, for [`ProblemKind::ScopeMissing`].
    scope: Option<Arc<str>>,
    /// Seconds after which a retry can succeed, if known.
    retry_after: Option<u64>,
    /// The cause. It is logged and never sent.
    cause: Option<PortError>,
}

/// An invalid part of the body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct FieldError {
    /// The position: a JSON Pointer as a URI fragment (RFC 6901, 6).
    #[schema(example = "#/notifications/3/title")]
    pub(super) pointer: String,
    /// The reason, in words.
    #[schema(example = "a title must not be blank")]
    pub(super) detail: String,
}

impl FieldError {
    /// `field` is a path from the root of the document, such as `notifications/3/title`.
    pub(super) fn at(field: impl fmt::Display, detail: impl fmt::Display) -> Self {
        Self { pointer: format!("#/{field}"), detail: detail.to_string() }
    }
}

impl Problem {
    pub(super) fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { kind, detail, errors: Vec::new(), scope: None, retry_after: None, cause: None }
    }

    /// The caller exceeded a rate limit and may retry after `wait`. `Retry-After` has whole seconds;
    /// rounding up keeps clients from retrying too early.
    pub(super) fn too_many_requests(wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        Self { retry_after: Some(seconds.max(1)), ..Self::from(ProblemKind::TooManyRequests) }
    }

    /// The body is JSON but not valid; `errors` lists every invalid part.
    pub(super) fn invalid_body(errors: Vec<FieldError>) -> Self {
        let detail = match &*errors {
            [only] => format!("{}: {}", only.pointer, only.detail),
            many => format!("{} fields are not valid", many.len()),
        };
        Self { errors, ..Self::new(ProblemKind::BodyInvalid, detail) }
    }

    /// The response header of this failure: a challenge that names the missing scope, the known time until a
    /// retry, or the header of the kind.
    fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        let challenge = self.scope.as_ref().and_then(|scope| {
            let text = format!(r#"Bearer error="insufficient_scope", scope="{scope}""#);
            HeaderValue::try_from(text).ok()
        });
        let wait = self.retry_after.map(|seconds| (RETRY_AFTER, seconds.into()));
        challenge.map(|value| (WWW_AUTHENTICATE, value)).or(wait).or_else(|| self.kind.header())
    }
}

impl From<ProblemKind> for Problem {
    fn from(kind: ProblemKind) -> Self {
        Self::new(kind, kind.title())
    }
}

impl From<InvalidForm> for Problem {
    fn from(invalid: InvalidForm) -> Self {
        FieldError::at(invalid.field, invalid.problem).into()
    }
}

impl From<FieldError> for Problem {
    fn from(error: FieldError) -> Self {
        Self::invalid_body(vec![error])
    }
}

impl From<PortError> for Problem {
    fn from(cause: PortError) -> Self {
        let kind = match &cause {
            PortError::Unavailable(_) | PortError::Failed(_) => ProblemKind::Unavailable,
            // All input was validated before, so a rejection is a bug in Belfry.
            PortError::Rejected(_) => ProblemKind::Internal,
        };
        Self { cause: Some(cause), ..Self::from(kind) }
    }
}

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        let detail = error.to_string();
        let kind = match error {
            AuthError::TokenMissing => ProblemKind::TokenMissing,
            AuthError::TokenInvalid | AuthError::ClaimInvalid(_) => ProblemKind::TokenInvalid,
            AuthError::TokenExpired => ProblemKind::TokenExpired,
            AuthError::TokenRevoked => ProblemKind::TokenRevoked,
            AuthError::OtherUser => ProblemKind::TokenOfOtherUser,
            AuthError::ScopeMissing(scope) => {
                return Self { scope: Some(scope), ..Self::new(ProblemKind::ScopeMissing, detail) };
            }
            AuthError::Unavailable(cause) => return Self { detail, ..Self::from(cause) },
        };
        Self::new(kind, detail)
    }
}

/// An error response (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemForm<'a> {
    /// URI of the kind of failure: `urn:belfry:problem:` followed by the code.
    #[serde(rename = "type")]
    #[schema(value_type = String, example = "urn:belfry:problem:body_invalid")]
    kind: String,
    /// Describes the kind of failure.
    #[schema(example = "The body is not valid")]
    title: &'a str,
    /// The HTTP status code.
    #[schema(minimum = 400, maximum = 599, example = 422)]
    status: u16,
    /// Describes this failure. Never repeats values from the request.
    #[schema(example = "#/title: a title must not be blank")]
    detail: &'a str,
    /// Stable identifier of the kind of failure, for programs.
    #[schema(example = "body_invalid")]
    code: &'a str,
    /// Every invalid part of the body.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(required = false)]
    errors: &'a [FieldError],
}

impl<'a> From<&'a Problem> for ProblemForm<'a> {
    fn from(problem: &'a Problem) -> Self {
        let code = problem.kind.code();
        Self {
            kind: format!("urn:belfry:problem:{code}"),
            title: problem.kind.title(),
            status: problem.kind.status().as_u16(),
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
                error!(error = cause as &dyn Error, "request failed: internal error");
            }
            Some(cause) => {
                warn!(error = cause as &dyn Error, "request failed: dependency unavailable");
            }
            None => {}
        }
        let body = serde_json::to_vec(&ProblemForm::from(&self))
            .expect("strings and numbers always serialize");
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
    fn auth_error_becomes_problem_with_the_same_code() {
        let down = || PortError::unavailable("down");
        for error in [
            AuthError::TokenMissing,
            AuthError::TokenInvalid,
            AuthError::ClaimInvalid("has no claim exp".to_owned()),
            AuthError::TokenExpired,
            AuthError::OtherUser,
            AuthError::TokenRevoked,
            AuthError::ScopeMissing(Scopes::WRITE.into()),
            AuthError::Unavailable(down()),
        ] {
            let code = error.code();
            assert_eq!(Problem::from(error).kind.code(), code);
        }
    }

    #[test]
    fn missing_scope_is_named_in_the_challenge() {
        let missing = Problem::from(AuthError::ScopeMissing(Scopes::WRITE.into()));
        let (name, value) = missing.header().unwrap();
        assert_eq!(name, WWW_AUTHENTICATE);
        assert!(value.to_str().unwrap().contains(Scopes::WRITE));
    }

    #[test]
    fn retry_after_is_rounded_up_to_at_least_one_second() {
        for (millis, seconds) in [(0, "1"), (1, "1"), (1_000, "1"), (1_001, "2")] {
            let problem = Problem::too_many_requests(Duration::from_millis(millis));
            let (name, value) = problem.header().unwrap();
            assert_eq!((name, value.to_str().unwrap()), (RETRY_AFTER, seconds));
        }
    }

    #[test]
    fn cause_is_not_in_the_response() {
        let problem = Problem::from(PortError::rejected("password authentication failed"));
        let json = serde_json::to_string(&ProblemForm::from(&problem)).unwrap();
        assert!(!json.contains("password"), "{json}");
    }
}
