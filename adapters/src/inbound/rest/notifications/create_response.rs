//! Responses to requests that create notifications.

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use belfry_application::ports::IdempotentOutcome;
use belfry_domain::{Draft, Notification, NotificationId, Receipt};
use http::header::LOCATION;
use http::{HeaderValue, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use utoipa::ToSchema;

use super::super::base_path::BasePath;
use super::super::headers::IDEMPOTENT_REPLAYED;
use super::super::problem::{Problem, ProblemKind};
use crate::wire::NotificationForm;

/// The created notification or notifications.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = Created)]
pub(super) enum CreatedForm<'a> {
    /// One recipient.
    One(Box<NotificationForm<'a>>),
    /// Many recipients.
    Many(ItemsForm<'a>),
}

/// Several notifications, in the order of the request.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Notifications)]
pub(super) struct ItemsForm<'a> {
    /// The notifications in their current state.
    items: Vec<NotificationForm<'a>>,
}

/// The response to a request for a single notification. If the sender's id belongs to an existing
/// notification with different content, the response is a conflict, because one of the two requests is a
/// mistake.
pub(super) fn one(
    draft: &Draft,
    created: &IdempotentOutcome,
    base_path: &BasePath,
) -> Result<Response, Problem> {
    let outcome = CreateOutcome::of(created)?;
    let &notification = outcome.notifications.first().ok_or(ProblemKind::NotificationGone)?;
    if notification.id == draft.id && !notification.has_same_content(draft) {
        return Err(ProblemKind::NotificationDiffers.into());
    }
    let mut response = outcome.response(CreatedForm::One(Box::new(notification.into())));
    if response.status() == StatusCode::CREATED {
        response.headers_mut().insert(LOCATION, location(base_path, &notification.id));
    }
    Ok(response)
}

/// The response to a request for several notifications.
pub(super) fn many(created: &IdempotentOutcome) -> Result<Response, Problem> {
    let outcome = CreateOutcome::of(created)?;
    let items = outcome.notifications.iter().copied().map(NotificationForm::from).collect();
    Ok(outcome.response(CreatedForm::Many(ItemsForm { items })))
}

/// The notifications in their current state, with the status of the response.
struct CreateOutcome<'a> {
    notifications: Vec<&'a Notification>,
    status: StatusCode,
    /// Whether an earlier request with the same idempotency key created the notifications.
    replayed: bool,
}

impl<'a> CreateOutcome<'a> {
    fn of(created: &'a IdempotentOutcome) -> Result<Self, Problem> {
        match created {
            IdempotentOutcome::Executed(receipts) => {
                let any_new = receipts.iter().any(|receipt| matches!(receipt, Receipt::Created(_)));
                let status = if any_new { StatusCode::CREATED } else { StatusCode::OK };
                let notifications = receipts.iter().filter_map(Receipt::notification).collect();
                Ok(Self { notifications, status, replayed: false })
            }
            IdempotentOutcome::Repeated(existing) => {
                let notifications = existing.iter().collect();
                Ok(Self { notifications, status: StatusCode::CREATED, replayed: true })
            }
            IdempotentOutcome::KeyReused => Err(ProblemKind::IdempotencyKeyReused.into()),
        }
    }

    fn response(&self, form: CreatedForm<'_>) -> Response {
        let mut response = (self.status, Json(form)).into_response();
        if self.replayed {
            let headers = response.headers_mut();
            headers.insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
        }
        response
    }
}

/// The characters to percent-encode: all except the unreserved ones (RFC 3986, 2.3).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The characters to percent-encode in the id `unread-count`. At the path with the plain hyphen, GET returns
/// the count. The router compares segments before it decodes them, so an encoded hyphen leads to the
/// notification.
const ENCODED_HYPHEN: &AsciiSet = &ENCODED.add(b'-');

/// The path at which the recipient can read, mark and delete the notification.
fn location(base_path: &BasePath, id: &NotificationId) -> HeaderValue {
    let is_count_route = id.as_str() == "unread-count";
    let id =
        utf8_percent_encode(id.as_str(), if is_count_route { ENCODED_HYPHEN } else { ENCODED });
    let path = base_path.join(&format!("/v1/notifications/{id}"));
    HeaderValue::try_from(path).expect("an encoded path is visible ASCII")
}
