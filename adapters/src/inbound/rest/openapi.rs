//! The contract (OpenAPI 3.1), generated from the routes.

use utoipa::openapi::path::Operation;
use utoipa::openapi::response::Response;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Ref, RefOr, Server};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::base_path::BasePath;
use super::headers::REQUEST_ID;
use super::problem::ProblemForm;
use super::problem_sets::{self, text_header};
use super::state::RestState;
use super::{health, notifications, users};

/// The contract without its paths.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Belfry",
        version = "1",
        description = "Notifications: services create them, users read and change their own inbox. \
            Devices receive every change immediately over Socket.IO (see `asyncapi.yaml`).",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    tags(
        (name = "writing", description = "For services. Requires the scope `notifications:write`."),
        (name = "inbox", description = "For users: the inbox of the token's user, and no other."),
        (name = "users", description = "For operators. Each operation requires a scope."),
        (name = "health", description = "For orchestrators and load balancers."),
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

/// The routes together with the contract.
pub(super) fn routes() -> OpenApiRouter<RestState> {
    let mut routes = OpenApiRouter::with_openapi(Contract::openapi())
        .merge(notifications::routes())
        .merge(users::routes())
        .routes(routes!(health::live))
        .routes(routes!(health::ready));
    complete_contract(routes.get_openapi_mut());
    routes
}

/// The server entry for the base path; `None` for the root.
pub(super) fn servers(base_path: &BasePath) -> Option<Vec<Server>> {
    (!base_path.is_root()).then(|| vec![Server::new(base_path.as_str())])
}

pub(super) fn to_json(contract: &utoipa::openapi::OpenApi) -> String {
    let mut json = contract.to_pretty_json().expect("a contract always serializes");
    json.push('\n');
    json
}

/// Adds the parts that are common to all operations: a unique operation id, and the request id as a
/// response header.
fn complete_contract(contract: &mut utoipa::openapi::OpenApi) {
    let components = contract.components.get_or_insert_default();
    let request_id = text_header(
        "Identifies the request in the server's logs: the client's id if it sent one, else generated.",
    );
    components.headers.insert(REQUEST_ID.to_string(), request_id.into());
    components.responses = problem_sets::responses();
    components.responses.values_mut().for_each(add_request_id);
    for item in contract.paths.paths.values_mut() {
        for (suffix, operation) in [
            ("", &mut item.get),
            ("", &mut item.delete),
            ("", &mut item.patch),
            ("_by_post", &mut item.post),
            ("_by_put", &mut item.put),
        ] {
            if let Some(operation) = operation {
                make_id_unique(operation, suffix);
                operation.responses.responses.values_mut().for_each(add_request_id);
            }
        }
    }
}

/// Adds the suffix to the id of an operation `mark_…`. These operations accept `PATCH`, `POST` and `PUT` with
/// one handler, so their ids would be equal otherwise.
fn make_id_unique(operation: &mut Operation, suffix: &str) {
    if let Some(id) = operation.operation_id.as_mut().filter(|id| id.starts_with("mark_")) {
        id.push_str(suffix);
    }
}

fn add_request_id(response: &mut RefOr<Response>) {
    if let RefOr::T(response) = response {
        let shared = Ref::new(format!("#/components/headers/{REQUEST_ID}"));
        response.headers.insert(REQUEST_ID.to_string(), RefOr::Ref(shared));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use serde_json::Value;

    use super::*;

    fn contract() -> String {
        to_json(routes().get_openapi())
    }

    #[test]
    fn contract_file_matches_the_routes() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("contracts/openapi.json");
        if std::env::var_os("BELFRY_UPDATE_CONTRACTS").is_some() {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, contract()).unwrap();
        }
        let in_file = fs::read_to_string(&file).unwrap_or_default();
        let in_file: Value = serde_json::from_str(&in_file).unwrap_or_default();
        let generated: Value = serde_json::from_str(&contract()).unwrap();
        assert!(
            in_file == generated,
            "contracts/openapi.json does not match the routes. To update it: \
             BELFRY_UPDATE_CONTRACTS=1 cargo test -p belfry-adapters openapi"
        );
    }

    #[test]
    fn operation_ids_are_unique() {
        let contract: Value = serde_json::from_str(&contract()).unwrap();
        let operations = contract["paths"].as_object().unwrap().values();
        let operations: Vec<_> =
            operations.flat_map(|item| item.as_object().unwrap().values()).collect();
        let ids: BTreeSet<_> =
            operations.iter().map(|one| one["operationId"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), operations.len(), "{ids:?}");
    }

    #[test]
    fn every_reference_resolves() {
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
