use axum::extract::State;
use axum::response::Response;
use belfry_domain::Draft;
use serde::Deserialize;
use utoipa::ToSchema;

use super::super::body::{OnceHeader, Posted};
use super::super::caller::{Caller, Creating};
use super::super::intake::Intake;
use super::super::json;
use super::super::openapi::WriterProblems;
use super::super::problem::{FieldError, Problem};
use super::created::{self, ItemsForm};
use crate::wire::DraftForm;

/// Put many notifications into their inboxes
///
/// All of them or, if one is not valid, none. One that is there already, by its id or its dedupe
/// key, stays as it is.
#[utoipa::path(
    post, path = "/v1/notifications/batch", tag = "writing", operation_id = "create_notifications",
    security(("bearer" = ["notifications:write"])),
    params(OnceHeader),
    request_body = BatchForm,
    responses(
        (status = 201, description = "Stored, and will be told.", body = ItemsForm, headers(
            ("Idempotent-Replayed" = String,
                description = "`true` if this took effect before: nothing was done now."),
        )),
        (status = 200, description = "All were there already. Nothing was done.", body = ItemsForm),
        WriterProblems,
    ),
)]
pub(super) async fn create_batch(
    caller: Caller<Creating>,
    State(intake): State<Intake>,
    posted: Posted,
) -> Result<Response, Problem> {
    let once = posted.once(caller.user())?;
    let form: BatchForm = json::read(&posted.body)?;
    let created = intake.create.run(form.drafts(&intake)?, once).await?;
    created::many(&created)
}

/// Many notifications, each with its own recipient.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
#[schema(as = Batch)]
pub(super) struct BatchForm {
    /// The notifications.
    #[schema(min_items = 1, max_items = 500)]
    notifications: Vec<DraftForm>,
}

impl BatchForm {
    const MOST: usize = 500;

    fn drafts(self, intake: &Intake) -> Result<Vec<Draft>, Problem> {
        let count = self.notifications.len();
        if !(1..=Self::MOST).contains(&count) {
            let detail = format_args!("there must be 1 to {}, not {count}", Self::MOST);
            return Err(FieldError::at("notifications", detail).into());
        }
        let mut errors = Vec::new();
        let mut drafts = Vec::with_capacity(count);
        for (n, form) in self.notifications.into_iter().enumerate() {
            match intake.draft(form, None) {
                Ok(draft) => drafts.push(draft),
                Err(invalid) => {
                    let field = format_args!("notifications/{n}/{}", invalid.field);
                    errors.push(FieldError::at(field, invalid.problem));
                }
            }
        }
        if errors.is_empty() { Ok(drafts) } else { Err(Problem::body(errors)) }
    }
}
