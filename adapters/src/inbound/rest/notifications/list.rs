use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Query, State};
use axum::response::{IntoResponse as _, Response};
use belfry_application::ports::ListFilter;
use belfry_domain::NotificationKind;
use http::request::Parts;
use serde::Deserialize;
use utoipa::IntoParams;

use super::super::authorized::{Authorized, ReadInbox};
use super::super::limits::RequestLimits;
use super::super::problem::{Problem, ProblemKind};
use super::super::problem_sets::{CallerProblems, ListProblems};
use super::super::query::{check_names, invalid};
use super::super::store_mode::StoreMode;
use crate::wire::{Cursor, Integer, PageForm, page_limit};

/// The query, not validated yet.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct PageQuery {
    /// Maximum number of notifications on the page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 100, default = 20)]
    limit: Option<String>,
    /// The `nextCursor` of the previous page.
    cursor: Option<String>,
    /// Only unread (`true`) or only read (`false`) notifications.
    #[param(value_type = Option<bool>)]
    unread: Option<String>,
    /// `true` is the same as `unread=true`; `false` requests all notifications.
    #[serde(rename = "unreadOnly")]
    #[param(value_type = Option<bool>)]
    unread_only: Option<String>,
    /// Only notifications of this type.
    #[serde(rename = "type")]
    #[param(max_length = 100)]
    kind: Option<String>,
}

/// The requested page of the inbox.
pub(super) struct PageRequest {
    filter: ListFilter,
    limit: usize,
}

impl PageRequest {
    const PARAMETERS: [&'static str; 5] = ["limit", "cursor", "unread", "unreadOnly", "type"];
}

/// List your notifications, newest first
///
/// A page contains the cursor of the next page. The cursor stays valid when notifications are created or
/// deleted.
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
    caller: Authorized<ReadInbox>,
    StoreMode(use_cases): StoreMode,
    State(limits): State<RequestLimits>,
    PageRequest { filter, limit }: PageRequest,
) -> Result<Response, Problem> {
    let page = use_cases.list.run(caller.user(), &filter, limit).await?;
    limits.charge_page(caller.user(), &page.items);
    Ok(Json(PageForm::from(&page)).into_response())
}

impl<S: Send + Sync> FromRequestParts<S> for PageRequest {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        check_names(parts, &Self::PARAMETERS)?;
        let query = Query::<PageQuery>::from_request_parts(parts, state).await;
        let Query(query) = query
            .map_err(|_: QueryRejection| invalid("each parameter may occur once in the query"))?;
        Self::try_from(query)
    }
}

impl TryFrom<PageQuery> for PageRequest {
    type Error = Problem;

    fn try_from(query: PageQuery) -> Result<Self, Problem> {
        let limit = query.limit.map(|raw| Integer::parse(&raw).ok_or("limit must be an integer"));
        let limit = limit.transpose().map_err(invalid)?;
        let limit = page_limit(limit).map_err(|error| invalid(error.to_string()))?;
        let unread = parse_flag("unread", query.unread.as_deref())?;
        let unread = match parse_flag("unreadOnly", query.unread_only.as_deref())? {
            None => unread,
            Some(_) if unread.is_some() => {
                return Err(invalid("give either unread or unreadOnly"));
            }
            Some(unread_only) => unread_only.then_some(true),
        };
        let before = query.cursor.as_deref().map(Cursor::parse).transpose();
        let before = before
            .map_err(|error| Problem::new(ProblemKind::CursorInvalid, error.to_string()))?
            .map(|cursor| cursor.0);
        let kind = query.kind.as_deref().map(NotificationKind::parse).transpose();
        let kind = kind.map_err(|error| invalid(error.to_string()))?;
        Ok(Self { filter: ListFilter { before, unread, kind }, limit })
    }
}

fn parse_flag(name: &str, raw: Option<&str>) -> Result<Option<bool>, Problem> {
    match raw {
        None => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(_) => Err(invalid(format!("{name} must be true or false"))),
    }
}
