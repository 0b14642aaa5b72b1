//! `compose.yaml`, with the image that `bootstrap/Dockerfile` builds.

use std::path::Path;
use std::process::{Command, Output};

use belfry_tests::clients::Device;
use belfry_tests::http::Http;
use belfry_tests::servers::free_port;
use belfry_tests::tokens::Key;
use serde_json::json;

use crate::setup::SECRET;

/// A project of `docker compose` with its own name and ports.
struct Project {
    name: String,
    ports: Vec<(&'static str, String)>,
}

impl Project {
    fn new() -> Self {
        let first = free_ports(2);
        let ports = vec![
            ("BELFRY_PORTS", format!("{first}-{}", first + 1)),
            ("RABBITMQ_PORT", free_port().to_string()),
            ("RABBITMQ_MANAGEMENT_PORT", free_port().to_string()),
        ];
        Self { name: format!("belfry-test-{first}"), ports }
    }

    fn compose(&self, arguments: &[&str]) -> Output {
        Command::new("docker")
            .args(["compose", "--project-name", &self.name])
            .args(arguments)
            .envs(self.ports.iter().map(|(name, value)| (name, value)))
            .env("BELFRY_AUTH__HS256_SECRET", SECRET)
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
            .output()
            .expect("docker can be run")
    }

    fn succeeds(&self, arguments: &[&str]) -> String {
        let output = self.compose(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "docker compose {arguments:?}: {error}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// The URL of a node, counted from 1.
    fn node(&self, index: &str) -> String {
        format!("http://{}", self.succeeds(&["port", "--index", index, "belfry", "8080"]))
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        self.compose(&["down", "--volumes", "--timeout", "10"]);
    }
}

/// The first of that many consecutive ports that are free.
fn free_ports(count: u16) -> u16 {
    loop {
        let first = free_port();
        let is_free = |port| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
        if (first + 1..first + count).all(is_free) {
            return first;
        }
    }
}

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
