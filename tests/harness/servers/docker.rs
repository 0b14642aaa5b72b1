//! Servers in containers.

use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use testcontainers_modules::postgres::Postgres;
use testcontainers_modules::rabbitmq::RabbitMq;
use testcontainers_modules::testcontainers::bollard::Docker;
use testcontainers_modules::testcontainers::bollard::query_parameters::KillContainerOptionsBuilder;
use testcontainers_modules::testcontainers::core::client::docker_client_instance;
use testcontainers_modules::testcontainers::core::{
    CmdWaitFor, ExecCommand, IntoContainerPort, WaitFor,
};
use testcontainers_modules::testcontainers::runners::AsyncRunner;
use testcontainers_modules::testcontainers::{ContainerAsync, ContainerRequest, Image, ImageExt};
use tokio::time::{Instant, sleep, timeout};

use super::supervisor::Server;
use super::{Access, Kind, ports, ready};
use crate::names::password;

/// The variable that names the image, and the default image.
type ImageSource = (&'static str, &'static str);

const POSTGRES_IMAGE: ImageSource = ("BELFRY_TEST_POSTGRES_IMAGE", "postgres:15");
const RABBIT_IMAGE: ImageSource = ("BELFRY_TEST_RABBITMQ_IMAGE", "rabbitmq:3.10-management");

/// Starts a container; `None` if no Docker engine can be reached.
pub(super) async fn start(kind: Kind, management: bool) -> anyhow::Result<Option<Box<dyn Server>>> {
    let Some(engine) = engine().await else {
        return Ok(None);
    };
    Ok(Some(match kind {
        Kind::Postgres => Box::new(postgres(engine).await?),
        Kind::Rabbit => Box::new(rabbit(engine, management).await?),
    }))
}

async fn engine() -> Option<Docker> {
    let engine = docker_client_instance().await.ok()?;
    timeout(Duration::from_secs(5), engine.ping()).await.ok()?.ok()?;
    Some(engine)
}

async fn postgres(engine: Docker) -> anyhow::Result<Container<Postgres>> {
    let (name, tag) = image(POSTGRES_IMAGE);
    let password = password();
    let port = ports::free();
    let request = Postgres::default()
        .with_user("belfry")
        .with_password(&password)
        .with_db_name("postgres")
        .with_name(name)
        .with_tag(tag)
        // Not `scram-sha-256`: it computes thousands of hashes for each connection, slowly in a debug build.
        .with_env_var("POSTGRES_HOST_AUTH_METHOD", "password")
        .with_mapped_port(port, 5432.tcp())
        .with_cmd(["postgres", "-c", "max_connections=500", "-c", "shared_buffers=64MB"]);
    Container::run(engine, Kind::Postgres, request, |host| Access {
        url: format!("postgres://belfry:{password}@{host}:{port}/postgres"),
        management: None,
    })
    .await
}

async fn rabbit(engine: Docker, management: bool) -> anyhow::Result<Container<RabbitMq>> {
    let (name, tag) = image(RABBIT_IMAGE);
    let password = password();
    let (port, management_port) = (ports::free(), ports::free());
    let request = RabbitMq::default()
        .with_name(name)
        .with_tag(tag)
        .with_env_var("RABBITMQ_DEFAULT_USER", "belfry")
        .with_env_var("RABBITMQ_DEFAULT_PASS", &password)
        .with_mapped_port(port, 5672.tcp())
        .with_mapped_port(management_port, 15672.tcp());
    Container::run(engine, Kind::Rabbit, request, |host| Access {
        url: format!("amqp://belfry:{password}@{host}:{port}/%2f"),
        management: management
            .then(|| format!("http://belfry:{password}@{host}:{management_port}")),
    })
    .await
}

/// The image's name and tag, from the environment variable or the default.
fn image((variable, default): ImageSource) -> (String, String) {
    let image = std::env::var(variable).unwrap_or_else(|_| default.to_owned());
    // A colon before the last slash belongs to a registry's port.
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name.to_owned(), tag.to_owned()),
        _ => (image, "latest".to_owned()),
    }
}

struct Container<I: Image> {
    engine: Docker,
    kind: Kind,
    inner: ContainerAsync<I>,
    access: Access,
}

impl<I: Image> Container<I> {
    async fn run(
        engine: Docker,
        kind: Kind,
        request: ContainerRequest<I>,
        access: impl FnOnce(&str) -> Access,
    ) -> anyhow::Result<Self> {
        let container = request
            // `until_ready` asks the server itself, in the same way for every image.
            .with_ready_conditions(vec![WaitFor::Nothing])
            .with_startup_timeout(Duration::from_mins(5))
            .start()
            .await?;
        let host = match container.get_host().await?.to_string() {
            // The ports are mapped on IPv4, and `localhost` may resolve to IPv6 first.
            host if host == "localhost" => "127.0.0.1".to_owned(),
            host => host,
        };
        let this = Self { engine, kind, inner: container, access: access(&host) };
        match this.until_ready().await {
            Ok(()) => Ok(this),
            Err(error) => {
                this.inner.rm().await.context("the container is not removed")?;
                Err(error)
            }
        }
    }

    async fn until_ready(&self) -> anyhow::Result<()> {
        ready::wait(self.kind, &self.access, async || match self.inner.is_running().await {
            Ok(true) => None,
            Ok(false) => Some(self.log_tail().await),
            Err(error) => Some(error.to_string()),
        })
        .await
    }

    async fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let options = KillContainerOptionsBuilder::new().signal(signal).build();
        Ok(self.engine.kill_container(self.inner.id(), Some(options)).await?)
    }

    async fn until_ended(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.inner.is_running().await? {
            anyhow::ensure!(Instant::now() < deadline, "it still runs");
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    async fn log_tail(&self) -> String {
        let log = self.inner.stderr_to_vec().await.unwrap_or_default();
        let lines: Vec<_> = log.trim_ascii().rsplit(|byte| *byte == b'\n').take(5).collect();
        lines.into_iter().rev().map(String::from_utf8_lossy).collect::<Vec<_>>().join("\n")
    }
}

#[async_trait(?Send)]
impl<I: Image> Server for Container<I> {
    fn access(&self) -> Access {
        self.access.clone()
    }

    async fn start(&mut self) -> anyhow::Result<()> {
        self.inner.start().await?;
        self.until_ready().await
    }

    async fn stop(&mut self) -> anyhow::Result<()> {
        self.signal(match self.kind {
            // SIGINT is PostgreSQL's "fast" shutdown. After SIGTERM it would wait for its clients to
            // disconnect, and not every image declares SIGINT as its stop signal.
            Kind::Postgres => "SIGINT",
            Kind::Rabbit => "SIGTERM",
        })
        .await?;
        self.until_ended().await
    }

    async fn control(&mut self, arguments: &[&str]) -> anyhow::Result<()> {
        anyhow::ensure!(self.kind == Kind::Rabbit, "only RabbitMQ can do {arguments:?}");
        let command = ExecCommand::new(["rabbitmqctl"].iter().chain(arguments).copied())
            .with_cmd_ready_condition(CmdWaitFor::exit_code(0));
        self.inner.exec(command).await?;
        Ok(())
    }

    async fn kill(&mut self) -> anyhow::Result<()> {
        self.signal("SIGKILL").await?;
        self.until_ended().await
    }

    async fn remove(self: Box<Self>) -> anyhow::Result<()> {
        Ok(self.inner.rm().await?)
    }
}
