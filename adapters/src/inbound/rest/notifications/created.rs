//! What became of a request to create, as an answer.

use std::fmt::Write as _;

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use belfry_application::ports::IdempotentOutcome;
use belfry_domain::{Draft, Notification, NotificationId, Receipt};
use http::header::LOCATION;
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use super::super::base_path::BasePath;
use super::super::problem::{Kind, Problem};
use crate::wire::NotificationForm;

/// `true` on the answer to a request that had taken effect before.
pub(in super::super) const IDEMPOTENT_REPLAYED: HeaderName =
    HeaderName::from_static("idempotent-replayed");

/// What was created.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = Created)]
pub(super) enum CreatedForm<'a> {
    /// For one recipient.
    One(Box<NotificationForm<'a>>),
    /// For many.
    Many(ItemsForm<'a>),
}

/// Several notifications, in the order in which they were asked for.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Notifications)]
pub(super) struct ItemsForm<'a> {
    /// Each as its inbox has it now.
    items: Vec<NotificationForm<'a>>,
}

/// The answer to who asked for one notification. An id that the sender gave names one notification:
/// if that says something else than what was asked for, one of the two is a mistake.
pub(super) fn one(
    draft: &Draft,
    created: &IdempotentOutcome,
    base_path: &BasePath,
) -> Result<Response, Problem> {
    let outcome = Outcome::of(created)?;
    let &notification = outcome.notifications.first().ok_or(Kind::NotificationGone)?;
    if notification.id == draft.id && !notification.has_same_content(draft) {
        return Err(Kind::NotificationDiffers.into());
    }
    let mut response = outcome.answer(CreatedForm::One(Box::new(notification.into())));
    if response.status() == StatusCode::CREATED {
        response.headers_mut().insert(LOCATION, location(base_path, &notification.id));
    }
    Ok(response)
}

/// The answer to who asked for several.
pub(super) fn many(created: &IdempotentOutcome) -> Result<Response, Problem> {
    let outcome = Outcome::of(created)?;
    let items = outcome.notifications.iter().copied().map(NotificationForm::from).collect();
    Ok(outcome.answer(CreatedForm::Many(ItemsForm { items })))
}

/// The notifications that there are now, and what it took.
struct Outcome<'a> {
    notifications: Vec<&'a Notification>,
    status: StatusCode,
    replayed: bool,
}

impl<'a> Outcome<'a> {
    fn of(created: &'a IdempotentOutcome) -> Result<Self, Problem> {
        match created {
            IdempotentOutcome::Executed(receipts) => {
                let any_new = receipts.iter().any(|one| matches!(one, Receipt::Created(_)));
                let status = if any_new { StatusCode::CREATED } else { StatusCode::OK };
                let notifications = receipts.iter().filter_map(Receipt::notification).collect();
                Ok(Self { notifications, status, replayed: false })
            }
            IdempotentOutcome::Repeated(there) => {
                let notifications = there.iter().collect();
                Ok(Self { notifications, status: StatusCode::CREATED, replayed: true })
            }
            IdempotentOutcome::KeyReused => Err(Kind::IdempotencyKeyReused.into()),
        }
    }

    fn answer(&self, form: CreatedForm<'_>) -> Response {
        let mut response = (self.status, Json(form)).into_response();
        if self.replayed {
            let headers = response.headers_mut();
            headers.insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
        }
        response
    }
}

/// Where a notification's recipient finds it.
fn location(base_path: &BasePath, id: &NotificationId) -> HeaderValue {
    let mut path = base_path.join("/v1/notifications/");
    for byte in id.as_str().bytes() {
        // What stands for itself in a segment of a path (RFC 3986, 2.3).
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            path.push(char::from(byte));
        } else {
            let _ = write!(path, "%{byte:02X}");
        }
    }
    HeaderValue::try_from(path).expect("an encoded path is visible ASCII")
}
