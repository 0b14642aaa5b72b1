//! `compose.yaml`, with the image that `bootstrap/Dockerfile` builds.

mod memory_limit;
mod project;

use belfry_tests::clients::Device;
use belfry_tests::http::Http;
use belfry_tests::tokens::Key;
use serde_json::json;

use crate::setup::SECRET;
use project::Project;

#[tokio::test]
#[ignore = "builds the image, which takes ten minutes from nothing; `tests/run compose` runs it"]
async fn compose_file_builds_and_starts_two_nodes_that_share_a_users_inbox() {
    let project = Project::new();
    project.succeeds(&["up", "--build", "--wait", "--scale", "belfry=2"]);
    let (first, second) = (project.node("1"), project.node("2"));
    for node in [&first, &second] {
        Http::new(node.as_str()).get("/health/ready").await.expect(200);
    }
    let key = Key::hs256(SECRET);
    let device = Device::node(&second).token(&key.token("ada").sign()).connect().await;
    device.expect("notification:sync").await;
    let service =
        Http::new(first.as_str()).bearer(key.token("shop").scope("notifications:write").sign());
    service.post("/v1/notifications", &json!({ "userId": "ada", "title": "Hi" })).await.expect(201);
    assert_eq!(device.expect("notification:new").await["title"], "Hi");
}
