//! PgBouncer in front of a test's database.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use reqwest::Url;
use rustix::process::geteuid;
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;

use crate::child::ChildProcess;
use crate::postgres::Database;
use crate::servers::free_port;
use crate::wait::until;

/// A running `pgbouncer` in its default mode, session pooling. Dropping it kills it.
#[derive(Debug)]
pub struct PgBouncer {
    url: String,
    _process: ChildProcess,
    _folder: TempDir,
}

impl PgBouncer {
    /// Starts a `pgbouncer` in front of this database and waits until it serves.
    ///
    /// # Panics
    /// When it is not installed (on Debian: `apt-get install pgbouncer`) or does not serve.
    pub async fn start(database: &Database) -> Self {
        let server = Url::parse(database.url()).expect("the URL of a database is valid");
        let name = server.path().trim_start_matches('/');
        let port = free_port();
        let folder =
            TempDir::with_prefix("belfry-test-").expect("a temporary folder can be created");
        let settings = folder.path().join("pgbouncer.ini");
        let text = format!(
            "[databases]\n\
             {name} = host={} port={} user={} password={}\n\
             [pgbouncer]\n\
             listen_addr = 127.0.0.1\n\
             listen_port = {port}\n\
             unix_socket_dir =\n\
             auth_type = any\n",
            server.host_str().expect("it has a host"),
            server.port().unwrap_or(5432),
            server.username(),
            server.password().unwrap_or_default(),
        );
        fs::write(&settings, text).expect("the folder can be written");
        let mut command = Command::new(program());
        if geteuid().is_root() {
            // PgBouncer refuses to run as root.
            command.args(["-u", "nobody"]);
        }
        let process = ChildProcess::new(command.arg(&settings), Some(folder.path()));
        let process = process.expect("pgbouncer can be run (on Debian: apt-get install pgbouncer)");
        let url = format!("postgres://anyone@127.0.0.1:{port}/{name}");
        let options = accepted_options(&url);
        until("PgBouncer serves", async || PgConnection::connect_with(&options).await.ok()).await;
        Self { url, _process: process, _folder: folder }
    }

    /// The URL of the database through PgBouncer.
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// Connection options without `extra_float_digits`, a startup parameter that PgBouncer rejects by default.
fn accepted_options(url: &str) -> sqlx::postgres::PgConnectOptions {
    let options: sqlx::postgres::PgConnectOptions = url.parse().expect("it is a URL");
    options.extra_float_digits(None)
}

/// The executable. Debian installs it in `/usr/sbin`, which is not in the `PATH` of every user.
fn program() -> PathBuf {
    let debian = Path::new("/usr/sbin/pgbouncer");
    if debian.exists() { debian.to_owned() } else { PathBuf::from("pgbouncer") }
}
