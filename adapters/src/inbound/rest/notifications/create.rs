use std::borrow::Cow;
use std::collections::HashSet;
use std::iter;

use axum::extract::State;
use axum::response::Response;
use belfry_domain::{Draft, UserId};
use serde::Deserialize;
use utoipa::openapi::schema::{AllOfBuilder, Schema};
use utoipa::openapi::{Ref, RefOr};
use utoipa::{PartialSchema, ToSchema};

use super::super::body::{OnceHeader, Posted};
use super::super::caller::{Caller, Creating};
use super::super::intake::Intake;
use super::super::json;
use super::super::openapi::{ConflictProblems, WriterProblems};
use super::super::problem::{FieldError, Problem};
use super::super::router::RestSettings;
use super::created::{self, CreatedForm};
use crate::wire::{DraftForm, TextOrNumber};

/// Put a notification into a user's inbox, or into many users' inboxes
///
/// Once it answers, they are stored and will be told to every device. Of many recipients, one who
/// has it already, by its id or its dedupe key, keeps it as it is.
#[utoipa::path(
    post, path = "/v1/notifications", tag = "writing", operation_id = "create_notification",
    security(("bearer" = ["notifications:write"])),
    params(OnceHeader),
    request_body(content = OrderForm, examples(
        ("for one user" = (value = json!({
            "userId": "u42", "type": "order.shipped", "title": "Your order is on its way",
            "data": { "orderId": 7 }, "link": "/orders/7",
        }))),
        ("for many users" = (value = json!({
            "userIds": ["u42", "u43"], "title": "We are closed tomorrow", "priority": "high",
        }))),
    )),
    responses(
        (status = 201, description = "Stored, and will be told. For one recipient the \
            notification, for many a list.", body = CreatedForm, headers(
            ("Location" = String, description = "Where its recipient finds it; for one only."),
            ("Idempotent-Replayed" = String,
                description = "`true` if this took effect before: nothing was done now."),
        )),
        (status = 200, description = "It was there already, by its id or its dedupe key. Nothing \
            was done.", body = CreatedForm),
        WriterProblems, ConflictProblems,
    ),
)]
pub(super) async fn create(
    caller: Caller<Creating>,
    State(intake): State<Intake>,
    State(settings): State<RestSettings>,
    posted: Posted,
) -> Result<Response, Problem> {
    let once = posted.once(caller.user())?;
    match Order::read(&posted.body, &intake)? {
        Order::One(draft) => {
            let created = intake.create.run(vec![(*draft).clone()], once).await?;
            created::one(&draft, &created, &settings.base_path)
        }
        Order::Many(drafts) => created::many(&intake.create.run(drafts, once).await?),
    }
}

/// What is asked for: one notification, for one user or for many.
enum Order {
    One(Box<Draft>),
    Many(Vec<Draft>),
}

impl Order {
    const MOST_RECIPIENTS: usize = 1_000;

    fn read(body: &[u8], intake: &Intake) -> Result<Self, Problem> {
        // Read twice: flattened into another form, `data` would not be kept byte by byte.
        let form: DraftForm = json::read(body)?;
        let RecipientsForm { user_ids } = json::read(body)?;
        match user_ids {
            None => Ok(Self::One(intake.draft(form, None)?.into())),
            Some(_) if form.user_id.is_some() => {
                Err(FieldError::at("userIds", "give either userId or userIds").into())
            }
            Some(user_ids) => Self::for_many(form, &user_ids, intake),
        }
    }

    fn for_many(form: DraftForm, raw: &[TextOrNumber], intake: &Intake) -> Result<Self, Problem> {
        let given_id = form.id.is_some();
        let mut users = users(raw)?.into_iter();
        let first = users.next().ok_or_else(|| FieldError::at("userIds", "names nobody"))?;
        let draft = intake.draft(form, Some(first))?;
        let others: Vec<_> = users
            .map(|user| {
                let id = if given_id { draft.id.clone() } else { intake.new_id() };
                Draft { id, user, ..draft.clone() }
            })
            .collect();
        Ok(Self::Many(iter::once(draft).chain(others).collect()))
    }
}

/// Each user once, in the order of the list.
fn users(raw: &[TextOrNumber]) -> Result<Vec<UserId>, Problem> {
    let most = Order::MOST_RECIPIENTS;
    if raw.len() > most {
        return Err(FieldError::at("userIds", format_args!("names more than {most}")).into());
    }
    let mut errors = Vec::new();
    let mut users = Vec::with_capacity(raw.len());
    for (n, raw) in raw.iter().enumerate() {
        match UserId::parse(&raw.to_string()) {
            Ok(user) => users.push(user),
            Err(problem) => errors.push(FieldError::at(format_args!("userIds/{n}"), problem)),
        }
    }
    if !errors.is_empty() {
        return Err(Problem::body(errors));
    }
    let mut seen = HashSet::new();
    users.retain(|user| seen.insert(user.clone()));
    Ok(users)
}

/// The recipients, if there are many. Stands in the same object as the notification.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", expecting = "an object")]
struct RecipientsForm {
    /// The recipients, instead of `userId`. One who is named twice gets it once.
    #[schema(min_items = 1, max_items = 1000)]
    user_ids: Option<Vec<TextOrNumber>>,
}

/// The object in which both stand, for the contract.
struct OrderForm;

impl PartialSchema for OrderForm {
    fn schema() -> RefOr<Schema> {
        AllOfBuilder::new()
            .item(Ref::from_schema_name(DraftForm::name()))
            .item(RecipientsForm::schema())
            .description(Some("One notification, for one user or for many."))
            .into()
    }
}

impl ToSchema for OrderForm {
    fn name() -> Cow<'static, str> {
        "Order".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((DraftForm::name().into_owned(), DraftForm::schema()));
        DraftForm::schemas(schemas);
        RecipientsForm::schemas(schemas);
    }
}
