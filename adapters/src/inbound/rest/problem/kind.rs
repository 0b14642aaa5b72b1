//! Every kind of failure with its HTTP status, code and title, in one table.

use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};

/// Declares [`ProblemKind`] and its table: kind, status, code, title.
macro_rules! problem_kinds {
    ($($kind:ident: $status:ident, $code:literal, $title:literal;)+) => {
        /// The kind of a failure.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(in super::super) enum ProblemKind {
            $($kind,)+
        }

        impl ProblemKind {
            const fn row(self) -> (StatusCode, &'static str, &'static str) {
                match self {
                    $(Self::$kind => (StatusCode::$status, $code, $title),)+
                }
            }
        }
    };
}

problem_kinds! {
    JsonMalformed: BAD_REQUEST, "json_malformed", "The body is not valid JSON";
    BodyUnreadable: BAD_REQUEST, "body_unreadable", "The body ended early";
    QueryInvalid: BAD_REQUEST, "query_invalid", "The query is not valid";
    CursorInvalid: BAD_REQUEST, "cursor_invalid", "The cursor is not valid";
    IdInvalid: BAD_REQUEST, "id_invalid", "The id in the path is not valid";
    IdempotencyKeyInvalid: BAD_REQUEST, "idempotency_key_invalid",
        "The idempotency key is not valid";
    TokenMissing: UNAUTHORIZED, "token_missing", "A token is required";
    TokenInvalid: UNAUTHORIZED, "token_invalid", "The token is not valid";
    TokenExpired: UNAUTHORIZED, "token_expired", "The token has expired";
    TokenRevoked: UNAUTHORIZED, "token_revoked",
        "The token was revoked, or issued within the tolerated clock difference after a revocation";
    TokenOfOtherUser: UNAUTHORIZED, "token_of_other_user", "The token belongs to another user";
    ScopeMissing: FORBIDDEN, "scope_missing", "The token lacks a required scope";
    NotFound: NOT_FOUND, "not_found", "The notification does not exist";
    RouteUnknown: NOT_FOUND, "route_unknown", "No route has this path";
    MethodNotAllowed: METHOD_NOT_ALLOWED, "method_not_allowed",
        "The path does not support this method";
    NotificationDiffers: CONFLICT, "notification_differs",
        "Another notification with this id exists";
    InboxNotKept: CONFLICT, "inbox_not_kept", "Another service keeps the inboxes";
    NotificationGone: GONE, "notification_gone", "The notification was deleted";
    BodyTooLarge: PAYLOAD_TOO_LARGE, "body_too_large", "The body is too large";
    ContentTypeUnsupported: UNSUPPORTED_MEDIA_TYPE, "content_type_unsupported",
        "The body must be application/json";
    BodyInvalid: UNPROCESSABLE_ENTITY, "body_invalid", "The body is not valid";
    IdempotencyKeyReused: UNPROCESSABLE_ENTITY, "idempotency_key_reused",
        "The idempotency key was used for another request";
    TooManyRequests: TOO_MANY_REQUESTS, "too_many_requests", "Too many requests";
    Internal: INTERNAL_SERVER_ERROR, "internal", "Internal error";
    Unavailable: SERVICE_UNAVAILABLE, "unavailable", "The service is temporarily unavailable";
    TimedOut: SERVICE_UNAVAILABLE, "timed_out", "The request took too long";
}

impl ProblemKind {
    pub(in super::super) const fn status(self) -> StatusCode {
        self.row().0
    }

    /// Stable identifier for programs.
    pub(in super::super) const fn code(self) -> &'static str {
        self.row().1
    }

    /// Short description for people.
    pub(in super::super) const fn title(self) -> &'static str {
        self.row().2
    }

    /// The response header of this kind: an authentication challenge, or when to retry.
    pub(in super::super) fn header(self) -> Option<(HeaderName, HeaderValue)> {
        let header = |name, text| Some((name, HeaderValue::from_static(text)));
        match self {
            // A request without a token gets no error code (RFC 6750, 3.1).
            Self::TokenMissing => header(WWW_AUTHENTICATE, r#"Bearer realm="belfry""#),
            Self::TokenInvalid
            | Self::TokenExpired
            | Self::TokenRevoked
            | Self::TokenOfOtherUser => header(WWW_AUTHENTICATE, r#"Bearer error="invalid_token""#),
            Self::ScopeMissing => header(WWW_AUTHENTICATE, r#"Bearer error="insufficient_scope""#),
            Self::Unavailable | Self::TimedOut | Self::TooManyRequests => header(RETRY_AFTER, "1"),
            _ => None,
        }
    }
}
