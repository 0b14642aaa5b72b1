//! PostgreSQL for a test: a database of its own, or a server of its own.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};

use crate::names::unique;
use crate::servers::supervisor::ServerCommand;
use crate::servers::{Kind, OwnServer, shared};
use crate::wait::block_on_thread;

/// How long dropping a database may delay the end of a test.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(15);

/// Creates an empty database on the server that all tests share.
///
/// # Panics
/// When no server can be started, or the server cannot create the database.
pub async fn fresh_database() -> Database {
    Database::on(&shared(Kind::Postgres).await.url).await
}

/// An empty database that no other test uses. Dropping this value drops the database and closes all
/// connections to it.
#[derive(Debug)]
pub struct Database {
    name: String,
    url: String,
    server: String,
}

impl Database {
    /// Creates an empty database on the server with this URL.
    ///
    /// # Panics
    /// When the server does not create it.
    pub async fn on(server: &str) -> Self {
        Self::create(server, "").await
    }

    /// Creates an empty database with this encoding on the shared server.
    ///
    /// # Panics
    /// When the server does not create it.
    pub async fn with_encoding(encoding: &str) -> Self {
        let options = format!("ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'");
        Self::create(&shared(Kind::Postgres).await.url, &options).await
    }

    async fn create(server: &str, options: &str) -> Self {
        let name = format!("belfry_test_{}", unique());
        execute(server, &format!(r#"CREATE DATABASE "{name}" TEMPLATE template0 {options}"#))
            .await
            .unwrap_or_else(|error| panic!("no database on the test server: {error}"));
        let (before, _) = server.rsplit_once('/').expect("the URL ends with a database");
        Self { url: format!("{before}/{name}"), name, server: server.to_owned() }
    }

    /// `postgres://user:password@host:port/name`
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A connection pool.
    ///
    /// # Panics
    /// When the server cannot be reached.
    pub async fn pool(&self) -> PgPool {
        PgPool::connect(&self.url).await.expect("the database can be reached")
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let server = self.server.clone();
        let statement = format!(r#"DROP DATABASE IF EXISTS "{}" WITH (FORCE)"#, self.name);
        // An error is ignored: the test may have stopped its own server, whose data is removed as a whole.
        let _ = block_on_thread(CLEANUP_TIMEOUT, async move { execute(&server, &statement).await });
    }
}

async fn execute(server: &str, statement: &str) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(server).await?;
    // Safe: the names in the statement are generated above.
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await?;
    connection.close().await
}

/// A server that a test owns alone and may stop, kill and restart with the same port and data.
///
/// Dropping it stops it and removes its data.
#[derive(Debug)]
pub struct PostgresServer(OwnServer);

impl PostgresServer {
    /// Starts a new, empty server.
    ///
    /// # Panics
    /// When it cannot be started.
    pub async fn start_own() -> Self {
        Self(OwnServer::start(Kind::Postgres).await)
    }

    /// `postgres://…` with a superuser. [`Database::on`] creates a database on it.
    pub fn url(&self) -> &str {
        &self.0.access().url
    }

    /// Shuts it down ("fast": connections are closed, everything is written).
    ///
    /// # Panics
    /// When it does not stop.
    pub async fn stop(&self) {
        self.0.run(ServerCommand::Stop).await;
    }

    /// Kills it, like a crash. Committed data is on disk.
    ///
    /// # Panics
    /// When it cannot be killed.
    pub async fn kill(&self) {
        self.0.run(ServerCommand::Kill).await;
    }

    /// Restarts it and waits until it accepts connections.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start(&self) {
        self.0.run(ServerCommand::Start).await;
    }
}
