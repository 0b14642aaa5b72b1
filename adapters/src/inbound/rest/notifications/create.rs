use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use belfry_domain::{Draft, UserId};
use serde::Deserialize;
use utoipa::openapi::schema::{AllOfBuilder, Schema};
use utoipa::openapi::{Ref, RefOr};
use utoipa::{PartialSchema, ToSchema};

use super::super::authorized::{Authorized, Create};
use super::super::draft_factory::DraftFactory;
use super::super::json;
use super::super::json_body::{IdempotencyHeader, JsonBody};
use super::super::limits::RequestLimits;
use super::super::problem::{FieldError, Problem};
use super::super::problem_sets::{ConflictProblems, WriterProblems};
use super::super::query::NoQuery;
use super::super::state::RestSettings;
use super::super::store_mode::StoreMode;
use super::create_response::{self, CreatedForm};
use crate::wire::{DraftForm, TextOrNumber};

/// Create a notification for one or many users
///
/// After a success response the notifications are stored and will be delivered to every device. A recipient
/// whose inbox already has the notification, by its id or its dedupe key, keeps it unchanged. A recipient who
/// has deleted it does not get it again: the response for one recipient is `notification_gone`, and a list
/// leaves it out.
#[utoipa::path(
    post, path = "/v1/notifications", tag = "writing", operation_id = "create_notification",
    security(("bearer" = ["notifications:write"])),
    params(IdempotencyHeader),
    request_body(content = CreateForm, examples(
        ("for one user" = (value = json!({
            "userId": "u42", "type": "order.shipped", "title": "Your order is on its way",
            "data": { "orderId": 7 }, "link": "/orders/7",
        }))),
        ("for many users" = (value = json!({
            "userIds": ["u42", "u43"], "title": "We are closed tomorrow", "priority": "high",
        }))),
    )),
    responses(
        (status = 201, description = "Stored, and will be delivered. The notification for one \
            recipient, a list for many.", body = CreatedForm, headers(
            ("Location" = String,
                description = "The notification's path, for its recipient. Only in responses for one \
                    recipient. In the path of the id `unread-count` the hyphen is percent-encoded, because \
                    GET returns the count otherwise: use the path unchanged."),
            ("Idempotent-Replayed" = String,
                description = "`true` if the request took effect earlier. Nothing changed now."),
        )),
        (status = 200, description = "The notification existed already, by its id or its dedupe key. \
            Nothing changed.", body = CreatedForm),
        WriterProblems, ConflictProblems,
    ),
)]
pub(super) async fn create(
    caller: Authorized<Create>,
    StoreMode(use_cases): StoreMode,
    _: NoQuery,
    State(drafts): State<DraftFactory>,
    State(settings): State<Arc<RestSettings>>,
    State(limits): State<RequestLimits>,
    body: JsonBody,
) -> Result<Response, Problem> {
    let key = body.idempotency_key(caller.user())?;
    match RequestedDrafts::parse(&body.bytes, &drafts)? {
        RequestedDrafts::One(draft) => {
            let created = use_cases.create.run(vec![(*draft).clone()], key).await?;
            create_response::one(&draft, &created, &settings.base_path)
        }
        RequestedDrafts::Many(for_many) => {
            let _reserved = limits.reserve_drafts(for_many.text_bytes()).await;
            let drafts = for_many.into_drafts(&drafts);
            create_response::many(&use_cases.create.run(drafts, key).await?)
        }
    }
}

/// The drafts of a request: one for `userId`, or one for each of `userIds`.
enum RequestedDrafts {
    One(Box<Draft>),
    Many(ForMany),
}

impl RequestedDrafts {
    const MAX_RECIPIENTS: usize = 1_000;

    /// The maximum size of the texts of all recipients together, in bytes. They are written in one
    /// transaction, for which the store needs several times as much memory.
    const MAX_TEXT_BYTES: usize = 4 * 1024 * 1024;

    fn parse(body: &[u8], drafts: &DraftFactory) -> Result<Self, Problem> {
        // The body is parsed twice. One struct that flattens the other would not keep `data` byte by byte.
        let form: DraftForm = json::parse(body)?;
        let RecipientsForm { user_ids } = json::parse(body)?;
        match user_ids {
            None => Ok(Self::One(drafts.draft(form, None)?.into())),
            Some(_) if form.user_id.is_some() => {
                Err(FieldError::at("userIds", "give either userId or userIds").into())
            }
            Some(user_ids) => Self::for_many(form, &user_ids, drafts),
        }
    }

    fn for_many(
        form: DraftForm,
        user_ids: &[TextOrNumber],
        drafts: &DraftFactory,
    ) -> Result<Self, Problem> {
        let has_id = form.id.is_some();
        let mut users = parse_users(user_ids)?.into_iter();
        let Some(first) = users.next() else {
            return Err(FieldError::at("userIds", "must not be empty").into());
        };
        let draft = drafts.draft(form, Some(first))?;
        let for_many = ForMany { draft, others: users.collect(), has_id };
        let (bytes, max) = (for_many.text_bytes(), Self::MAX_TEXT_BYTES);
        if bytes > max {
            let detail = format_args!(
                "the texts for all users must have at most {max} bytes together, these have {bytes}; \
                 send several requests"
            );
            return Err(FieldError::at("userIds", detail).into());
        }
        Ok(Self::Many(for_many))
    }
}

/// The same notification for several users.
struct ForMany {
    /// For the first user.
    draft: Draft,
    others: Vec<UserId>,
    /// Whether the request has an id, which is then the same for all users.
    has_id: bool,
}

impl ForMany {
    /// The size of the texts of all drafts, in bytes.
    fn text_bytes(&self) -> usize {
        (1 + self.others.len()) * self.draft.text_bytes()
    }

    fn into_drafts(self, factory: &DraftFactory) -> Vec<Draft> {
        let Self { draft, others, has_id } = self;
        let mut drafts = Vec::with_capacity(1 + others.len());
        drafts.push(draft);
        for user in others {
            let first = &drafts[0];
            let id = if has_id { first.id.clone() } else { factory.new_id() };
            drafts.push(Draft { id, user, ..first.clone() });
        }
        drafts
    }
}

/// The users without duplicates, in the order of the list.
fn parse_users(user_ids: &[TextOrNumber]) -> Result<Vec<UserId>, Problem> {
    let max = RequestedDrafts::MAX_RECIPIENTS;
    if user_ids.len() > max {
        return Err(FieldError::at("userIds", format_args!("must have at most {max} items")).into());
    }
    let mut errors = Vec::new();
    let mut users = Vec::with_capacity(user_ids.len());
    for (n, raw) in user_ids.iter().enumerate() {
        match UserId::parse_addressable(&raw.to_string()) {
            Ok(user) => users.push(user),
            Err(error) => errors.push(FieldError::at(format_args!("userIds/{n}"), error)),
        }
    }
    if !errors.is_empty() {
        return Err(Problem::invalid_body(errors));
    }
    let mut seen = HashSet::new();
    users.retain(|user| seen.insert(user.clone()));
    Ok(users)
}

/// The recipients if there are many, in the same object as the notification.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", expecting = "an object")]
struct RecipientsForm {
    /// The recipients, instead of `userId`. Duplicates are ignored. The texts of the notification, times the number
    /// of recipients, have at most 4 MiB.
    #[schema(min_items = 1, max_items = 1000)]
    user_ids: Option<Vec<TextOrNumber>>,
}

/// The request body in the contract: [`DraftForm`] and [`RecipientsForm`] in one object.
struct CreateForm;

impl PartialSchema for CreateForm {
    fn schema() -> RefOr<Schema> {
        AllOfBuilder::new()
            .item(Ref::from_schema_name(DraftForm::name()))
            .item(RecipientsForm::schema())
            .description(Some("One notification, for one user or for many."))
            .into()
    }
}

impl ToSchema for CreateForm {
    fn name() -> Cow<'static, str> {
        "Order".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((DraftForm::name().into_owned(), DraftForm::schema()));
        DraftForm::schemas(schemas);
        RecipientsForm::schemas(schemas);
    }
}
