//! Schemathesis generates requests from the OpenAPI document. The responses must conform to the document.

use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use tokio::process::Command;
use tokio::time::timeout;

use crate::setup::{Setup, key};

/// How many random requests are generated for each operation, besides those with the limits in the document.
const EXAMPLES: &str = "40";

/// The timeout of a run that hangs. Normally a run takes far less.
const TIMEOUT: Duration = Duration::from_mins(5);

/// These checks are about responses. Requests that violate the document need not be rejected: unknown fields
/// are ignored by design, and a number may be a string.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";

/// The output has the seed; `BELFRY_SEED=…` generates the same requests again.
#[tokio::test]
async fn responses_conform_to_the_openapi_document() {
    let deployment = Setup::Embedded.own().await;
    let caller = deployment.user("caller");
    // The inbox must not be empty.
    for id in ["n1", "n2", "n3"] {
        let draft = json!({ "id": id, "title": "Hello", "data": { "a": [1] }, "link": "/a" });
        deployment.notify(&caller, draft).await;
    }
    let scopes = "notifications:write tokens:revoke users:erase";
    let token = key().token(caller.id()).scope(scopes).sign();
    let url = deployment.belfry.url();
    let seed = std::env::var("BELFRY_SEED").unwrap_or_else(|_| deployment.belfry.pid().to_string());
    let python = std::env::var_os("BELFRY_TEST_PYTHON");
    let venv = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/.venv/bin/python");
    let mut schemathesis = Command::new(python.unwrap_or_else(|| venv.into()));
    schemathesis
        .args(["-m", "schemathesis.cli", "run", &format!("{url}/openapi.json"), "--url", url])
        .args(["--header", &format!("Authorization: Bearer {token}")])
        .args(["--phases", "examples,coverage,fuzzing", "--max-examples", EXAMPLES])
        // This operation would revoke the token, and all further requests would be rejected.
        .args(["--exclude-operation-id", "revoke_all_tokens"])
        .args(["--checks", CHECKS, "--seed", &seed, "--continue-on-failure", "--no-color"])
        // Schemathesis writes its findings to the working directory.
        .current_dir(deployment.belfry.folder())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = timeout(TIMEOUT, schemathesis.output()).await.expect("it ends");
    let output = output.expect("tests/run installs it");
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{out}\n{err}");
    assert!(output.status.success(), "{}", output.status);
    // Without this, a run without requests would pass.
    let contract = deployment.belfry.http().get("/openapi.json").await.expect(200);
    let operations: usize = contract["paths"]
        .as_object()
        .unwrap()
        .values()
        .map(|operations| operations.as_object().unwrap().len())
        .sum();
    // All but the excluded one.
    let tested = operations - 1;
    assert!(out.contains(&format!("Tested: {tested}\n")), "all operations but one were tested");
    deployment.notify(&caller, json!({ "title": "Still there" })).await;
}
