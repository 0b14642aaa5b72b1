//! PostgreSQL for a test: a database of its own, or a server of its own.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};

use crate::names::unique;
use crate::servers::keeper::Order;
use crate::servers::{Kind, Own, shared};
use crate::wait::aside;

/// How long dropping a database may hold up the end of a test.
const FAREWELL: Duration = Duration::from_secs(15);

/// Makes a new, empty database on the server that all tests share.
///
/// # Panics
/// When there is no server to be had, or it makes no database.
pub async fn fresh_database() -> Database {
    Database::on(&shared(Kind::Postgres).await.url).await
}

/// An empty database that no other test uses. Dropping it drops the database, with everybody who is
/// still connected to it.
#[derive(Debug)]
pub struct Database {
    name: String,
    url: String,
    server: String,
}

impl Database {
    /// Makes a new, empty database on this server.
    ///
    /// # Panics
    /// When the server makes none.
    pub async fn on(server: &str) -> Self {
        let name = format!("belfry_test_{}", unique());
        execute(server, &format!(r#"CREATE DATABASE "{name}" TEMPLATE template0"#))
            .await
            .unwrap_or_else(|error| panic!("no database on the test server: {error}"));
        let (before, _) = server.rsplit_once('/').expect("the URL ends with a database");
        Self { url: format!("{before}/{name}"), name, server: server.to_owned() }
    }

    /// `postgres://user:password@host:port/name`
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A few connections to it.
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
        let drop = format!(r#"DROP DATABASE IF EXISTS "{}" WITH (FORCE)"#, self.name);
        // A server that its test has stopped takes the database with it.
        let _ = aside(FAREWELL, async move { execute(&server, &drop).await });
    }
}

async fn execute(server: &str, statement: &str) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(server).await?;
    // Not from outside: the names in it are made above.
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await?;
    connection.close().await
}

/// A server that a test owns alone, to stop, kill and start it again: same port, same data.
///
/// Dropping it takes it down and leaves nothing.
#[derive(Debug)]
pub struct PostgresServer(Own);

impl PostgresServer {
    /// Starts a new, empty server.
    ///
    /// # Panics
    /// When there is none to be had.
    pub async fn start_own() -> Self {
        Self(Own::start(Kind::Postgres).await)
    }

    /// `postgres://…` with a superuser. [`Database::on`] makes databases on it.
    pub fn url(&self) -> &str {
        &self.0.access().url
    }

    /// Stops it in good order ("fast": clients are cut off, everything is written).
    ///
    /// # Panics
    /// When it does not stop.
    pub async fn stop(&self) {
        self.0.order(Order::Stop).await;
    }

    /// Ends it as a crash would. What was committed is on disk.
    ///
    /// # Panics
    /// When it cannot be killed.
    pub async fn kill(&self) {
        self.0.order(Order::Kill).await;
    }

    /// Starts it again and waits until it serves.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start(&self) {
        self.0.order(Order::Start).await;
    }
}
