//! The contract, written by the routes themselves (OpenAPI 3.1).

use std::collections::BTreeMap;

use http::header::RETRY_AFTER;
use serde_json::json;
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::Operation;
use utoipa::openapi::response::Response;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Header, ObjectBuilder, Ref, RefOr, Server, Type};
use utoipa::{IntoResponses, Modify, OpenApi, ToSchema as _};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::base_path::BasePath;
use super::observe::REQUEST_ID;
use super::problem::{Kind, PROBLEM_JSON, Problem, ProblemForm};
use super::router::RestParts;
use super::{health, notifications, users};

/// The contract but for its paths.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Belfry",
        version = "1",
        description = "Notifications: services write them, users read and change their own inbox. \
            Devices get every change at once over Socket.IO (see `asyncapi.yaml`).",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    tags(
        (name = "writing", description = "For services: a token with the scope `notifications:write`."),
        (name = "inbox", description = "For users: the inbox of the one the token speaks for, and no other."),
        (name = "users", description = "For operators: a token with the scope `tokens:revoke`."),
        (name = "health", description = "For whoever runs this."),
    ),
    components(schemas(ProblemForm<'static>)),
    modifiers(&BearerTokens),
)]
struct Contract;

struct BearerTokens;

impl Modify for BearerTokens {
    fn modify(&self, contract: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT");
        let components = contract.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(scheme.build()));
    }
}

/// The routes with the contract that they make together.
pub(super) fn routes() -> OpenApiRouter<RestParts> {
    let mut routes = OpenApiRouter::with_openapi(Contract::openapi())
        .merge(notifications::routes())
        .merge(users::routes())
        .routes(routes!(health::live))
        .routes(routes!(health::ready));
    complete(routes.get_openapi_mut());
    routes
}

/// Where the paths of the contract start; `None` for the root of the server.
pub(super) fn servers(base_path: &BasePath) -> Option<Vec<Server>> {
    (!base_path.is_root()).then(|| vec![Server::new(base_path.as_str())])
}

/// The contract as text.
pub(super) fn text(contract: &utoipa::openapi::OpenApi) -> String {
    let mut text = contract.to_pretty_json().expect("a contract is JSON");
    text.push('\n');
    text
}

/// Adds what holds for all operations: a name of its own for each, and the request's id on each
/// answer.
fn complete(contract: &mut utoipa::openapi::OpenApi) {
    let components = contract.components.get_or_insert_default();
    let request_id = text_header(
        "Names the request in our logs: the client's own id if it sent one, else ours.",
    );
    components.headers.insert(REQUEST_ID.to_string(), request_id.into());
    components.responses = problem_responses();
    components.responses.values_mut().for_each(carry_request_id);
    for item in contract.paths.paths.values_mut() {
        for (suffix, operation) in [
            ("", &mut item.get),
            ("", &mut item.delete),
            ("", &mut item.patch),
            ("_by_post", &mut item.post),
            ("_by_put", &mut item.put),
        ] {
            if let Some(operation) = operation {
                tell_apart(operation, suffix);
                operation.responses.responses.values_mut().for_each(carry_request_id);
            }
        }
    }
}

/// What `PATCH` does, `POST` and `PUT` do as well; their names in the contract must differ.
fn tell_apart(operation: &mut Operation, suffix: &str) {
    if let Some(id) = operation.operation_id.as_mut().filter(|id| id.starts_with("mark_")) {
        id.push_str(suffix);
    }
}

fn carry_request_id(response: &mut RefOr<Response>) {
    if let RefOr::T(response) = response {
        let shared = Ref::new(format!("#/components/headers/{REQUEST_ID}"));
        response.headers.insert(REQUEST_ID.to_string(), RefOr::Ref(shared));
    }
}

fn text_header(description: &str) -> Header {
    HeaderBuilder::new()
        .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
        .description(Some(description))
        .build()
}

/// Groups of failures that operations have in common, each group under its name and the status.
/// Written into the contract from the table of problems, so that it cannot tell another story.
macro_rules! problems {
    ($($(#[$doc:meta])* $name:ident: $($kind:ident)+;)+) => {
        $(
            $(#[$doc])*
            pub(super) struct $name;

            impl $name {
                const KINDS: &[Kind] = &[$(Kind::$kind),+];
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

        fn problem_responses() -> BTreeMap<String, RefOr<Response>> {
            let mut responses = BTreeMap::new();
            $(for (status, kinds) in by_status($name::KINDS) {
                let name = format!("{}{status}", stringify!($name));
                responses.insert(name, response(&kinds).into());
            })+
            responses
        }
    };
}

problems! {
    /// Whoever reads or changes an inbox may meet these.
    CallerProblems: TokenMissing TokenInvalid TokenExpired TokenRevoked ScopeMissing TooManyRequests
        Internal Unavailable TimedOut;
    /// Where the path names a notification.
    IdProblems: IdInvalid NotFound;
    /// Where the query says which part of an inbox.
    ListProblems: QueryInvalid CursorInvalid;
    /// Whoever writes notifications may meet these.
    WriterProblems: TokenMissing TokenInvalid TokenExpired TokenRevoked ScopeMissing JsonMalformed
        BodyUnreadable IdempotencyKeyInvalid BodyTooLarge ContentTypeUnsupported BodyInvalid
        IdempotencyKeyReused TooManyRequests Internal Unavailable TimedOut;
    /// Whoever revokes tokens may meet these.
    RevokerProblems: TokenMissing TokenInvalid TokenExpired TokenRevoked ScopeMissing IdInvalid
        JsonMalformed BodyUnreadable BodyTooLarge ContentTypeUnsupported BodyInvalid
        TooManyRequests Internal Unavailable TimedOut;
    /// Whoever writes one notification.
    ConflictProblems: NotificationDiffers NotificationGone;
}

fn by_status(kinds: &[Kind]) -> BTreeMap<String, Vec<Kind>> {
    let mut by_status: BTreeMap<String, Vec<Kind>> = BTreeMap::new();
    for kind in kinds {
        by_status.entry(kind.status().as_str().to_owned()).or_default().push(*kind);
    }
    by_status
}

fn response(kinds: &[Kind]) -> Response {
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
            RETRY_AFTER => "After how many seconds to try again.",
            _ => "What the token lacks (RFC 6750, 3).",
        });
        response.headers.insert(name.to_string(), header.into());
    }
    response
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use serde_json::Value;

    use super::*;

    fn contract() -> String {
        text(routes().get_openapi())
    }

    #[test]
    fn the_contract_on_file_is_the_one_that_the_routes_make() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("contracts/openapi.json");
        if std::env::var_os("BELFRY_UPDATE_CONTRACTS").is_some() {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, contract()).unwrap();
        }
        let on_file = fs::read_to_string(&file).unwrap_or_default();
        let on_file: Value = serde_json::from_str(&on_file).unwrap_or_default();
        let made: Value = serde_json::from_str(&contract()).unwrap();
        assert!(
            on_file == made,
            "contracts/openapi.json is not what the routes make. If the change is meant: \
             BELFRY_UPDATE_CONTRACTS=1 cargo test -p belfry-adapters openapi"
        );
    }

    #[test]
    fn every_operation_has_a_name_of_its_own() {
        let contract: Value = serde_json::from_str(&contract()).unwrap();
        let operations = contract["paths"].as_object().unwrap().values();
        let operations: Vec<_> =
            operations.flat_map(|item| item.as_object().unwrap().values()).collect();
        let ids: BTreeSet<_> =
            operations.iter().map(|one| one["operationId"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), operations.len(), "{ids:?}");
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
            match value {
                Value::Object(fields) => {
                    if let Some(Value::String(reference)) = fields.get("$ref") {
                        found.insert(reference);
                    }
                    fields.values().for_each(|value| references(value, found));
                }
                Value::Array(items) => items.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        let contract: Value = serde_json::from_str(&contract()).unwrap();
        let mut found = BTreeSet::new();
        references(&contract, &mut found);
        assert!(found.contains("#/components/schemas/Notification"));
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(contract.pointer(pointer).is_some(), "{reference}");
        }
    }
}
