use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Query, State};
use axum::response::{IntoResponse as _, Response};
use belfry_application::ports::ListFilter;
use belfry_application::use_cases::ListInbox;
use belfry_domain::NotificationKind;
use http::request::Parts;
use serde::Deserialize;
use utoipa::IntoParams;

use super::super::caller::{Caller, Reading};
use super::super::limits::RequestLimits;
use super::super::openapi::{CallerProblems, ListProblems};
use super::super::problem::{Kind, Problem};
use super::super::router::RestUseCases;
use crate::wire::{Cursor, PageForm};

/// Which part of the inbox, as it stands in the query.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct PageQuery {
    /// The most notifications on the page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 100, default = 20)]
    limit: Option<String>,
    /// The `nextCursor` of the page before.
    cursor: Option<String>,
    /// Only unread ones (`true`) or only read ones (`false`).
    #[param(value_type = Option<bool>)]
    unread: Option<String>,
    /// Only those of this type.
    #[serde(rename = "type")]
    #[param(max_length = 100)]
    kind: Option<String>,
}

/// Which part of the inbox is asked for.
pub(super) struct Wanted {
    filter: ListFilter,
    limit: usize,
}

impl Wanted {
    const USUAL_LIMIT: usize = 20;
}

/// Your notifications, newest first
///
/// A page ends with a cursor for the next one, which stays right while notifications come and go.
#[utoipa::path(
    get, path = "/v1/notifications", tag = "inbox", security(("bearer" = [])),
    operation_id = "list_notifications",
    params(PageQuery),
    responses(
        (status = 200, description = "A page.", body = PageForm),
        CallerProblems, ListProblems,
    ),
)]
pub(super) async fn list(
    caller: Caller<Reading>,
    State(stories): State<RestUseCases>,
    State(limits): State<RequestLimits>,
    Wanted { filter, limit }: Wanted,
) -> Result<Response, Problem> {
    let page = stories.list.run(caller.user(), &filter, limit).await?;
    limits.charge_notifications(caller.user(), page.items.len());
    Ok(Json(PageForm::from(&page)).into_response())
}

impl<S: Send + Sync> FromRequestParts<S> for Wanted {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = Query::<PageQuery>::from_request_parts(parts, state).await;
        let Query(query) = query.map_err(|_: QueryRejection| {
            Problem::new(Kind::QueryInvalid, "each parameter may stand in the query once")
        })?;
        Self::try_from(query)
    }
}

impl TryFrom<PageQuery> for Wanted {
    type Error = Problem;

    fn try_from(query: PageQuery) -> Result<Self, Problem> {
        let invalid = |detail: String| Problem::new(Kind::QueryInvalid, detail);
        let limit = match query.limit.map(|raw| raw.parse()) {
            None => Self::USUAL_LIMIT,
            Some(Ok(limit)) if (1..=ListInbox::MAX_LIMIT).contains(&limit) => limit,
            Some(_) => {
                let most = ListInbox::MAX_LIMIT;
                return Err(invalid(format!("limit is a number from 1 to {most}")));
            }
        };
        let unread = match query.unread.as_deref() {
            None => None,
            Some("true") => Some(true),
            Some("false") => Some(false),
            Some(_) => return Err(invalid("unread is true or false".to_owned())),
        };
        let before = query.cursor.as_deref().map(Cursor::parse).transpose();
        let before = before
            .map_err(|problem| Problem::new(Kind::CursorInvalid, problem.to_string()))?
            .map(|cursor| cursor.0);
        let kind = query.kind.as_deref().map(NotificationKind::parse).transpose();
        let kind = kind.map_err(|problem| invalid(problem.to_string()))?;
        Ok(Self { filter: ListFilter { before, unread, kind }, limit })
    }
}
