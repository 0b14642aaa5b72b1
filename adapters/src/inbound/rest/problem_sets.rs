//! The error responses that operations have in common, for the OpenAPI contract.

use std::collections::BTreeMap;

use http::header::RETRY_AFTER;
use serde_json::json;
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::response::Response;
use utoipa::openapi::{ContentBuilder, Header, ObjectBuilder, Ref, RefOr, Type};
use utoipa::{IntoResponses, ToSchema as _};

use super::problem::{PROBLEM_JSON, Problem, ProblemForm, ProblemKind};

/// Declares sets of problems as types, and the function [`responses`]. An operation lists its sets. The contract
/// contains each set once, as one response per status, named after the set and the status. The texts come from
/// [`ProblemKind`], so that the contract and the actual responses agree.
///
/// The sets of one operation must not share a status, because the response of the later set would replace
/// that of the earlier one. This is why several sets contain the same problems.
macro_rules! problem_sets {
    ($($(#[$doc:meta])* $name:ident: $($kind:ident)+;)+) => {
        $(
            $(#[$doc])*
            pub(super) struct $name;

            impl $name {
                const KINDS: &[ProblemKind] = &[$(ProblemKind::$kind),+];
            }

            impl IntoResponses for $name {
                fn responses() -> BTreeMap<String, RefOr<Response>> {
                    let statuses = by_status(Self::KINDS).into_keys();
                    let reference = |status| {
                        let name = format!("{}{status}", stringify!($name));
                        (status, Ref::from_response_name(name).into())
                    };
                    statuses.map(reference).collect()
                }
            }
        )+

        /// The responses of all sets by their name in the contract.
        pub(super) fn responses() -> BTreeMap<String, RefOr<Response>> {
            let mut responses = BTreeMap::new();
            $(for (status, kinds) in by_status($name::KINDS) {
                let name = format!("{}{status}", stringify!($name));
                responses.insert(name, response(&kinds).into());
            })+
            responses
        }
    };
}

problem_sets! {
    /// Problems of operations on the caller's inbox.
    CallerProblems: TokenMissing TokenInvalid TokenExpired TokenRevoked ScopeMissing InboxNotKept
        TooManyRequests Internal Unavailable TimedOut;
    /// Problems of operations without query parameters.
    QueryProblems: QueryInvalid;
    /// Problems of paths that contain a notification id.
    IdProblems: QueryInvalid IdInvalid NotFound;
    /// Problems of the query of a list.
    ListProblems: QueryInvalid CursorInvalid;
    /// Problems of operations that create notifications.
    WriterProblems: TokenMissing TokenInvalid TokenExpired TokenRevoked ScopeMissing QueryInvalid
        JsonMalformed BodyUnreadable IdempotencyKeyInvalid BodyTooLarge ContentTypeUnsupported BodyInvalid
        IdempotencyKeyReused TooManyRequests Internal Unavailable TimedOut;
    /// Problems of operations that revoke the tokens of all users.
    GlobalRevokerProblems: TokenMissing TokenInvalid TokenExpired TokenRevoked ScopeMissing
        QueryInvalid JsonMalformed BodyUnreadable BodyTooLarge ContentTypeUnsupported BodyInvalid
        TooManyRequests Internal Unavailable TimedOut;
    /// Problems of operations that revoke the tokens of a user.
    RevokerProblems: TokenMissing TokenInvalid TokenExpired TokenRevoked ScopeMissing QueryInvalid
        IdInvalid JsonMalformed BodyUnreadable BodyTooLarge ContentTypeUnsupported BodyInvalid
        TooManyRequests Internal Unavailable TimedOut;
    /// Problems of operations that erase users.
    EraserProblems: TokenMissing TokenInvalid TokenExpired TokenRevoked ScopeMissing QueryInvalid
        IdInvalid TooManyRequests Internal Unavailable TimedOut;
    /// Problems of creating a single notification.
    ConflictProblems: NotificationDiffers InboxNotKept NotificationGone;
    /// Problems of creating several notifications.
    BatchProblems: InboxNotKept;
}

fn by_status(kinds: &[ProblemKind]) -> BTreeMap<String, Vec<ProblemKind>> {
    let mut by_status: BTreeMap<String, Vec<ProblemKind>> = BTreeMap::new();
    for kind in kinds {
        by_status.entry(kind.status().as_str().to_owned()).or_default().push(*kind);
    }
    by_status
}

fn response(kinds: &[ProblemKind]) -> Response {
    let titles = kinds.iter().map(|kind| format!("`{}`: {}.", kind.code(), kind.title()));
    let description = titles.collect::<Vec<_>>().join(" ");
    let examples = kinds.iter().map(|kind| {
        let problem = Problem::from(*kind);
        let example = ExampleBuilder::new().value(Some(json!(ProblemForm::from(&problem))));
        (kind.code(), RefOr::T(example.build()))
    });
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name(ProblemForm::name())))
        .examples_from_iter(examples)
        .build();
    let mut response = Response::new(description);
    response.content.insert(PROBLEM_JSON.to_owned(), content.into());
    for (name, _) in kinds.iter().filter_map(|kind| kind.header()) {
        let header = text_header(match name {
            RETRY_AFTER => "Seconds after which to retry.",
            // The only other header is `WWW-Authenticate`.
            _ => "Which requirement the token does not meet (RFC 6750, 3).",
        });
        response.headers.insert(name.to_string(), header.into());
    }
    response
}

/// A header whose value is a string.
pub(super) fn text_header(description: &str) -> Header {
    HeaderBuilder::new()
        .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
        .description(Some(description))
        .build()
}
