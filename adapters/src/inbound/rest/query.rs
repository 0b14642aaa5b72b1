//! Query parameters. An unknown parameter is an error: if it were ignored, the response would not be the one
//! that the caller requested.

use axum::extract::{FromRequestParts, Query};
use http::request::Parts;

use super::problem::{Problem, ProblemKind};

/// Extractor that rejects every query parameter.
pub(super) struct NoQuery;

impl<S: Send + Sync> FromRequestParts<S> for NoQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        check_names(parts, &[]).map(|()| Self)
    }
}

/// Rejects a query with a parameter whose name is not in `known`.
pub(super) fn check_names(parts: &Parts, known: &[&str]) -> Result<(), Problem> {
    let parameters = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
    let Query(parameters) = parameters.map_err(|_| invalid("the query is not URL-encoded"))?;
    let unknown = parameters.iter().map(|(name, _)| &**name).find(|name| !known.contains(name));
    match unknown {
        None => Ok(()),
        Some("page" | "offset" | "skip") if known.contains(&"cursor") => Err(invalid(
            "pages are not numbered: leave out page, offset and skip, and request the next page with cursor, \
             the nextCursor of the previous one",
        )),
        Some(_) if known.is_empty() => Err(invalid("this operation has no query parameters")),
        Some(_) => Err(invalid(format!(
            "the query has an unknown parameter; the parameters are {}",
            known.join(", ")
        ))),
    }
}

pub(super) fn invalid(detail: impl Into<String>) -> Problem {
    Problem::new(ProblemKind::QueryInvalid, detail)
}
