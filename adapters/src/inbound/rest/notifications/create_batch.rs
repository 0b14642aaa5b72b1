use axum::extract::State;
use axum::response::Response;
use belfry_domain::Draft;
use serde::Deserialize;
use utoipa::ToSchema;

use super::super::authorized::{Authorized, Create};
use super::super::draft_factory::DraftFactory;
use super::super::json;
use super::super::json_body::{IdempotencyHeader, JsonBody};
use super::super::problem::{FieldError, Problem};
use super::super::problem_sets::{BatchProblems, WriterProblems};
use super::super::query::NoQuery;
use super::super::store_mode::StoreMode;
use super::create_response::{self, ItemsForm};
use crate::wire::DraftForm;

/// Create many notifications
///
/// Creates all of them or, if one is not valid, none. A notification that exists already, by its id or its
/// dedupe key, stays unchanged. One that its recipient has deleted is not created again, and the response leaves
/// it out.
#[utoipa::path(
    post, path = "/v1/notifications/batch", tag = "writing", operation_id = "create_notifications",
    security(("bearer" = ["notifications:write"])),
    params(IdempotencyHeader),
    request_body = BatchForm,
    responses(
        (status = 201, description = "Stored, and will be delivered.", body = ItemsForm, headers(
            ("Idempotent-Replayed" = String,
                description = "`true` if the request took effect earlier. Nothing changed now."),
        )),
        (status = 200, description = "All existed already. Nothing changed.", body = ItemsForm),
        WriterProblems, BatchProblems,
    ),
)]
pub(super) async fn create_batch(
    caller: Authorized<Create>,
    StoreMode(use_cases): StoreMode,
    _: NoQuery,
    State(drafts): State<DraftFactory>,
    body: JsonBody,
) -> Result<Response, Problem> {
    let key = body.idempotency_key(caller.user())?;
    let form: BatchForm = json::parse(&body.bytes)?;
    let created = use_cases.create.run(form.into_drafts(&drafts)?, key).await?;
    create_response::many(&created)
}

/// A request for many notifications.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
#[schema(as = Batch)]
pub(super) struct BatchForm {
    /// Each has its own recipient.
    #[schema(min_items = 1, max_items = 500)]
    notifications: Vec<DraftForm>,
}

impl BatchForm {
    const MAX_NOTIFICATIONS: usize = 500;

    fn into_drafts(self, factory: &DraftFactory) -> Result<Vec<Draft>, Problem> {
        let count = self.notifications.len();
        if !(1..=Self::MAX_NOTIFICATIONS).contains(&count) {
            let detail =
                format_args!("must have 1 to {} items, not {count}", Self::MAX_NOTIFICATIONS);
            return Err(FieldError::at("notifications", detail).into());
        }
        let mut errors = Vec::new();
        let mut drafts = Vec::with_capacity(count);
        for (n, form) in self.notifications.into_iter().enumerate() {
            match factory.draft(form, None) {
                Ok(draft) => drafts.push(draft),
                Err(invalid) => {
                    let field = format_args!("notifications/{n}/{}", invalid.field);
                    errors.push(FieldError::at(field, invalid.problem));
                }
            }
        }
        if errors.is_empty() { Ok(drafts) } else { Err(Problem::invalid_body(errors)) }
    }
}
