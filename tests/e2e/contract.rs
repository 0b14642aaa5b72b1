//! The contract as a stranger reads it: requests made up from it, answers held against it.

use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use tokio::process::Command;
use tokio::time::timeout;

use crate::setup::{Setup, key};

/// So many requests are made up for each operation, besides those for every limit in the contract.
const EXAMPLES: &str = "40";

/// Far more than it takes; for a run that hangs.
const BOUND: Duration = Duration::from_mins(5);

/// Whether an answer is none that the contract tells of. Not whether all that breaks the contract is
/// refused: fields that are not known are kept out, by design, and a number may be written as a text.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";

/// It prints its seed; `BELFRY_SEED=…` makes up the same requests again.
#[tokio::test]
async fn answers_are_as_the_contract_has_them() {
    let place = Setup::Embedded.own().await;
    let caller = place.user("caller");
    // So that an inbox has something to show.
    for id in ["n1", "n2", "n3"] {
        let draft = json!({ "id": id, "title": "Hello", "data": { "a": [1] }, "link": "/a" });
        place.notify(&caller, draft).await;
    }
    let scopes = "notifications:write tokens:revoke";
    let token = key().token(caller.id()).scope(scopes).sign();
    let url = place.belfry.url();
    let seed = std::env::var("BELFRY_SEED").unwrap_or_else(|_| place.belfry.pid().to_string());
    let python = std::env::var_os("BELFRY_TEST_PYTHON");
    let venv = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/.venv/bin/python");
    let mut schemathesis = Command::new(python.unwrap_or_else(|| venv.into()));
    schemathesis
        .args(["-m", "schemathesis.cli", "run", &format!("{url}/openapi.json"), "--url", url])
        .args(["--header", &format!("Authorization: Bearer {token}")])
        .args(["--phases", "examples,coverage,fuzzing", "--max-examples", EXAMPLES])
        .args(["--checks", CHECKS, "--seed", &seed, "--continue-on-failure", "--no-color"])
        // It would keep what it has found here.
        .current_dir(place.belfry.folder())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = timeout(BOUND, schemathesis.output()).await.expect("it ends");
    let output = output.expect("tests/run installs it");
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{out}\n{err}");
    assert!(output.status.success(), "{}", output.status);
    // One that asked nothing would have found nothing.
    let contract = place.belfry.http().get("/openapi.json").await.expect(200);
    let operations: usize = contract["paths"]
        .as_object()
        .unwrap()
        .values()
        .map(|operations| operations.as_object().unwrap().len())
        .sum();
    assert!(out.contains(&format!("Tested: {operations}\n")), "all operations were asked");
    place.notify(&caller, json!({ "title": "Still there" })).await;
}
