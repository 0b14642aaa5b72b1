//! A project of `docker compose`.

use std::path::Path;
use std::process::{Command, Output};

use belfry_tests::servers::free_port;

use crate::setup::SECRET;

/// A project of `docker compose` with its own name and ports.
pub(super) struct Project {
    name: String,
    ports: Vec<(&'static str, String)>,
    files: &'static [&'static str],
    rabbitmq_port: u16,
}

impl Project {
    pub(super) fn new() -> Self {
        Self::of(&["compose.yaml"])
    }

    /// A project of several files. Each file extends the files before it.
    pub(super) fn of(files: &'static [&'static str]) -> Self {
        let (first, rabbitmq_port) = (free_ports(2), free_port());
        let ports = vec![
            ("BELFRY_PORTS", format!("{first}-{}", first + 1)),
            ("RABBITMQ_PORT", rabbitmq_port.to_string()),
            ("RABBITMQ_MANAGEMENT_PORT", free_port().to_string()),
        ];
        Self { name: format!("belfry-test-{first}"), ports, files, rabbitmq_port }
    }

    fn compose(&self, arguments: &[&str]) -> Output {
        Command::new("docker")
            .args(["compose", "--project-name", &self.name])
            .args(self.files.iter().flat_map(|file| ["--file", file]))
            .args(arguments)
            .envs(self.ports.iter().map(|(name, value)| (name, value)))
            .env("BELFRY_AUTH__HS256_SECRET", SECRET)
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
            .output()
            .expect("docker can be run")
    }

    /// Runs a command and returns its output.
    ///
    /// # Panics
    /// When it fails.
    pub(super) fn succeeds(&self, arguments: &[&str]) -> String {
        let output = self.compose(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "docker compose {arguments:?}: {error}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// The URL of a node, counted from 1.
    pub(super) fn node(&self, index: &str) -> String {
        format!("http://{}", self.succeeds(&["port", "--index", index, "belfry", "8080"]))
    }

    /// The URL of RabbitMQ, with the placeholder password of `compose.yaml`.
    pub(super) fn broker(&self) -> String {
        format!("amqp://belfry:change-me@127.0.0.1:{}", self.rabbitmq_port)
    }

    /// How often Docker has restarted the service's container because its process had ended.
    pub(super) fn restarts(&self, service: &str) -> String {
        let container = self.succeeds(&["ps", "--quiet", service]);
        let format = "{{.RestartCount}}";
        let output =
            Command::new("docker").args(["inspect", "--format", format, &container]).output();
        String::from_utf8_lossy(&output.expect("docker can be run").stdout).trim().to_owned()
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        self.compose(&["down", "--volumes", "--timeout", "10"]);
    }
}

/// The first of `count` consecutive free ports.
fn free_ports(count: u16) -> u16 {
    loop {
        let first = free_port();
        let is_free = |port| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
        if (first + 1..first + count).all(is_free) {
            return first;
        }
    }
}
