//! RabbitMQ from the programs on this machine, with an Erlang port mapper (epmd) of its own.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use rustix::process::Signal;
use tokio::process::Command;

use super::super::supervisor::Server;
use super::super::{Access, Kind, ports, ready};
use super::nothing_found;
use super::program::{Home, Running};
use crate::names::{password, unique};

/// The folders that may have RabbitMQ's own scripts. Debian's wrapper in `/usr/sbin` would require the
/// system's user and folders.
const FOLDERS: [&str; 2] = ["/usr/lib/rabbitmq/bin", "/opt/rabbitmq/sbin"];

/// Writes a configuration and starts a broker on it.
pub(super) async fn start(management: bool) -> anyhow::Result<impl Server> {
    let Some(program) = program() else {
        return Err(nothing_found(Kind::Rabbit, "rabbitmq:3.10-management", "rabbitmq-server"));
    };
    let home = Home::new(None)?;
    let password = password();
    let ports = Ports::free(management);
    std::fs::write(home.path().join("rabbitmq.conf"), configuration(&ports, &password))?;
    let plugins = if management { "[rabbitmq_management]." } else { "[]." };
    std::fs::write(home.path().join("enabled_plugins"), plugins)?;
    // An empty file, so that the system's file is not read.
    std::fs::write(home.path().join("rabbitmq-env.conf"), "")?;

    let access = Access {
        url: format!("amqp://belfry:{password}@127.0.0.1:{}/%2f", ports.amqp),
        management: ports
            .management
            .map(|port| format!("http://belfry:{password}@127.0.0.1:{port}")),
    };
    let node = format!("belfry-{}@localhost", unique());
    let mut server = Local { program, home, ports, node, access, running: None };
    server.start().await?;
    Ok(server)
}

fn program() -> Option<PathBuf> {
    FOLDERS.iter().map(|folder| Path::new(folder).join("rabbitmq-server")).find(|it| it.exists())
}

struct Ports {
    amqp: u16,
    management: Option<u16>,
    distribution: u16,
    mapper: u16,
}

impl Ports {
    fn free(management: bool) -> Self {
        Self {
            amqp: ports::free(),
            management: management.then(ports::free),
            distribution: ports::free(),
            mapper: ports::free(),
        }
    }
}

fn configuration(ports: &Ports, password: &str) -> String {
    let mut lines = vec![
        format!("listeners.tcp.1 = 127.0.0.1:{}", ports.amqp),
        "default_user = belfry".to_owned(),
        format!("default_pass = {password}"),
        // Little disk space or memory on the machine must not block publishers in the middle of a test.
        "disk_free_limit.absolute = 1MB".to_owned(),
        "vm_memory_high_watermark.relative = 0.9".to_owned(),
        "log.console.level = info".to_owned(),
    ];
    if let Some(port) = ports.management {
        lines.push("management.tcp.ip = 127.0.0.1".to_owned());
        lines.push(format!("management.tcp.port = {port}"));
    }
    lines.join("\n") + "\n"
}

struct Local {
    program: PathBuf,
    home: Home,
    ports: Ports,
    node: String,
    access: Access,
    running: Option<Processes>,
}

struct Processes {
    broker: Running,
    mapper: Running,
}

impl Local {
    fn broker(&self) -> Command {
        let path = |name: &str| self.home.path().join(name);
        let mut command = self.home.command(&self.program);
        self.with_own_mapper(&mut command)
            .env("RABBITMQ_NODENAME", &self.node)
            .env("RABBITMQ_MNESIA_BASE", path("mnesia"))
            .env("RABBITMQ_LOG_BASE", path("logs"))
            .env("RABBITMQ_LOGS", "-")
            .env("RABBITMQ_CONFIG_FILE", path("rabbitmq.conf"))
            .env("RABBITMQ_CONF_ENV_FILE", path("rabbitmq-env.conf"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", path("enabled_plugins"))
            .env("RABBITMQ_PID_FILE", path("pid"))
            .env("RABBITMQ_DIST_PORT", self.ports.distribution.to_string())
            // With these two settings the script executes the broker in its own process, so that a signal
            // reaches the broker.
            .env("RABBITMQ_ALLOW_INPUT", "true")
            .env("RABBITMQ_SERVER_START_ARGS", "-noinput +B i")
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false",
            );
        command
    }

    /// `rabbitmqctl` from the same folder, which connects to the broker as another Erlang node.
    fn administrator(&self) -> Command {
        let mut command = self.home.command(self.program.with_file_name("rabbitmqctl"));
        self.with_own_mapper(&mut command)
            .env("RABBITMQ_NODENAME", &self.node)
            .env("RABBITMQ_CONF_ENV_FILE", self.home.path().join("rabbitmq-env.conf"));
        command
    }

    fn mapper(&self) -> Command {
        let mut command = self.home.command("epmd");
        self.with_own_mapper(&mut command);
        command
    }

    /// Makes the command use this server's port mapper. One that the broker starts by itself would outlive the
    /// tests.
    fn with_own_mapper<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .env("ERL_EPMD_PORT", self.ports.mapper.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
    }
}

#[async_trait(?Send)]
impl Server for Local {
    fn access(&self) -> Access {
        self.access.clone()
    }

    async fn start(&mut self) -> anyhow::Result<()> {
        anyhow::ensure!(self.running.is_none(), "it runs already");
        let mapper = self.home.spawn(&mut self.mapper())?;
        let mut broker = self.home.spawn(&mut self.broker())?;
        let served = ready::wait(Kind::Rabbit, &self.access, async || {
            broker.has_ended().then(|| self.home.log_tail())
        })
        .await;
        self.running = Some(Processes { broker, mapper });
        if served.is_err() {
            self.kill().await?;
        }
        served
    }

    async fn stop(&mut self) -> anyhow::Result<()> {
        let Some(running) = self.running.take() else {
            return Ok(());
        };
        running.broker.stop(Signal::TERM).await?;
        running.mapper.kill().await
    }

    async fn control(&mut self, arguments: &[&str]) -> anyhow::Result<()> {
        self.home.run(self.administrator().args(arguments)).await
    }

    async fn kill(&mut self) -> anyhow::Result<()> {
        let Some(running) = self.running.take() else {
            return Ok(());
        };
        running.broker.kill().await?;
        running.mapper.kill().await
    }

    async fn remove(mut self: Box<Self>) -> anyhow::Result<()> {
        // No graceful shutdown: the data is removed, too.
        self.kill().await?;
        self.home.remove()
    }
}
