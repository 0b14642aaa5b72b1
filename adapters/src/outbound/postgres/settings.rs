use std::fmt;
use std::time::Duration;

/// Connection settings and timeouts for PostgreSQL.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresSettings {
    /// `postgres://user:password@host:port/database`, with the parameters of libpq URLs, such as
    /// `sslmode=verify-full`. Missing parts come from `PGHOST`, `PGPASSWORD` and so on.
    pub url: String,
    /// The most connections of this node. A node that holds the outbox lease has one more. The sum
    /// over all nodes must stay below the server's `max_connections`.
    pub max_connections: u32,
    /// How long a call waits for a connection from the pool before it is `Unavailable`.
    pub acquire_timeout: Duration,
    /// The server cancels a statement that runs longer.
    pub statement_timeout: Duration,
}

impl PostgresSettings {
    /// 16 connections to that database, with timeouts that a healthy database does not reach.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            max_connections: 16,
            acquire_timeout: Duration::from_secs(3),
            statement_timeout: Duration::from_secs(10),
        }
    }

    /// The limit for a short sequence of statements. While the server is reachable, its own
    /// `statement_timeout` expires first.
    pub(super) fn work_timeout(&self) -> Duration {
        self.statement_timeout * 2 + Duration::from_secs(2)
    }
}

impl fmt::Debug for PostgresSettings {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresSettings")
            .field("url", &without_secrets(&self.url))
            .field("max_connections", &self.max_connections)
            .field("acquire_timeout", &self.acquire_timeout)
            .field("statement_timeout", &self.statement_timeout)
            .finish()
    }
}

/// The URL without user, password and parameters (`password` may be one of them). A text that is
/// not a URL is hidden completely, because any part of it may be a secret.
fn without_secrets(url: &str) -> String {
    let shown = url.split_once("://").map(|(scheme, rest)| {
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        format!("{scheme}://{host}")
    });
    shown.unwrap_or_else(|| "not a URL".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_contains_no_secret() {
        for (url, shown) in [
            ("postgres://ada:s3cret@db:5432/belfry", "postgres://db:5432/belfry"),
            ("postgres://db/belfry?password=s3cret&user=ada", "postgres://db/belfry"),
            ("postgres://ada:s3c@ret@db/belfry", "postgres://db/belfry"),
            ("ada:s3cret", "not a URL"),
        ] {
            let settings = format!("{:?}", PostgresSettings::new(url));
            assert!(settings.contains(shown), "{settings}");
            assert!(!settings.contains("s3c"), "{settings}");
        }
    }
}
