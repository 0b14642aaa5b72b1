//! The development page in a real browser, with real clicks.

use belfry_tests::clients::run_script;
use belfry_tests::process::{Belfry, Builder};
use serde_json::json;

use crate::setup::{Setup, ready};

async fn all_steps_pass(builder: Builder) {
    let belfry = ready(builder.start().await).await;
    let args = ["token", "--user", "operator", "--scope", "users:erase"];
    let operator_token = belfry.run(&args).await.out;
    let url = format!("{}/", belfry.url());
    let config = json!({ "url": url, "screenshots": null, "operator": operator_token.trim() });
    let reported = run_script("browser.mjs", &config).await;
    let (last, steps) = reported.split_last().unwrap();
    assert_eq!(last["kind"], "passed", "{last}");
    assert_eq!(last["steps"], steps.len(), "{last}");
    assert!(steps.len() > 10, "{steps:#?}");
}

#[tokio::test]
async fn page_works_on_the_embedded_default() {
    all_steps_pass(Belfry::builder()).await;
}

#[tokio::test]
async fn page_works_on_postgres_and_rabbitmq() {
    let backends = Setup::Servers.backends().await;
    let builder = Belfry::builder()
        .database(backends.database.as_ref().unwrap().url())
        .broker(backends.broker());
    all_steps_pass(builder).await;
}
