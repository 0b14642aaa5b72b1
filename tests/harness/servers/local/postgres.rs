//! PostgreSQL from `initdb` and `postgres`.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use rustix::process::Signal;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use super::super::supervisor::Server;
use super::super::{Access, Kind, ports, ready};
use super::nothing_found;
use super::program::{Home, Running, User};
use crate::names::password;

/// Creates a data folder and starts a server on it.
pub(super) async fn start() -> anyhow::Result<impl Server> {
    let Some(programs) = programs() else {
        return Err(nothing_found(Kind::Postgres, "postgres:15", "postgresql"));
    };
    // PostgreSQL refuses to run as root.
    let home = Home::new(User::instead_of_root(&["postgres", "nobody"]).await?)?;
    let password = password();
    std::fs::write(home.path().join("password"), &password)?;
    let mut initdb = home.command(programs.join("initdb"));
    initdb.args(["--pgdata=data", "--username=belfry", "--pwfile=password"]);
    // Not `scram-sha-256`: it computes thousands of hashes for each connection, slowly in a debug build.
    initdb.args(["--auth=password", "--encoding=UTF8", "--locale=C", "--no-sync"]);
    make_readable(&home)?;
    home.run(&mut initdb).await?;

    let port = ports::free();
    let access = Access {
        url: format!("postgres://belfry:{password}@127.0.0.1:{port}/postgres"),
        management: None,
    };
    let mut server = Local { programs, home, port, access, running: None };
    server.start().await?;
    Ok(server)
}

/// The folder of the server's programs: one in `PATH`, else Debian's folder of the newest version.
fn programs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .collect();
    versions.sort();
    std::env::split_paths(&path)
        .chain(versions.into_iter().rev().map(|(_, folder)| folder.join("bin")))
        .find(|folder| folder.join("initdb").exists() && folder.join("postgres").exists())
}

/// Lets the server's user read the password file, which root has written. Other users cannot open its folder.
fn make_readable(home: &Home) -> std::io::Result<()> {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt;

    set_permissions(home.path().join("password"), Permissions::from_mode(0o644))
}

struct Local {
    programs: PathBuf,
    home: Home,
    port: u16,
    access: Access,
    running: Option<Running>,
}

impl Local {
    fn command(&self) -> Command {
        let mut command = self.home.command(self.programs.join("postgres"));
        // `fsync` stays on: some tests check that a commit survives a crash.
        command.args(["-D", "data", "-p", &self.port.to_string()]).args([
            "--listen_addresses=127.0.0.1",
            "--unix_socket_directories=",
            "--max_connections=500",
            "--shared_buffers=64MB",
        ]);
        command
    }

    async fn try_start(&mut self) -> anyhow::Result<()> {
        let mut running = self.home.spawn(&mut self.command())?;
        let served = ready::wait(Kind::Postgres, &self.access, async || {
            running.has_ended().then(|| self.home.log_tail())
        })
        .await;
        match served {
            Ok(()) => self.running = Some(running),
            Err(_) => running.kill().await?,
        }
        served
    }
}

#[async_trait(?Send)]
impl Server for Local {
    fn access(&self) -> Access {
        self.access.clone()
    }

    async fn start(&mut self) -> anyhow::Result<()> {
        anyhow::ensure!(self.running.is_none(), "it runs already");
        // A start fails while child processes of a killed server still run and keep its shared memory.
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match self.try_start().await {
                Err(_) if Instant::now() < deadline => sleep(Duration::from_millis(500)).await,
                result => return result,
            }
        }
    }

    async fn stop(&mut self) -> anyhow::Result<()> {
        match self.running.take() {
            // SIGINT is PostgreSQL's "fast" shutdown: it does not wait for clients to disconnect.
            Some(running) => running.stop(Signal::INT).await,
            None => Ok(()),
        }
    }

    async fn kill(&mut self) -> anyhow::Result<()> {
        match self.running.take() {
            Some(running) => running.kill().await,
            None => Ok(()),
        }
    }

    async fn remove(mut self: Box<Self>) -> anyhow::Result<()> {
        // SIGQUIT is PostgreSQL's "immediate" shutdown. It ends the child processes too.
        if let Some(running) = self.running.take() {
            running.stop(Signal::QUIT).await?;
        }
        self.home.remove()
    }
}
