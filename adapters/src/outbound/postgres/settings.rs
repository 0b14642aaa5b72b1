use std::fmt;
use std::time::Duration;

/// How to reach PostgreSQL, and how long to wait for it.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresSettings {
    /// `postgres://user:password@host:port/database`, with the parameters of libpq's URLs, such as
    /// `sslmode=verify-full`. What it leaves out is taken from `PGHOST`, `PGPASSWORD` and so on.
    pub url: String,
    /// The most connections of this node; the lead of the outbox has one more. All nodes together
    /// must stay below the server's `max_connections`.
    pub max_connections: u32,
    /// How long a piece of work waits for a connection before it is `Unavailable`.
    pub acquire_timeout: Duration,
    /// How long one statement may take before the server gives it up.
    pub statement_timeout: Duration,
}

impl PostgresSettings {
    /// That database, with 16 connections and bounds that a database in good health stays far from.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            max_connections: 16,
            acquire_timeout: Duration::from_secs(3),
            statement_timeout: Duration::from_secs(10),
        }
    }

    /// How long a few statements in a row may take. The server's own bound comes first where there
    /// is still a server.
    pub(super) fn patience(&self) -> Duration {
        self.statement_timeout * 2 + Duration::from_secs(2)
    }
}

impl fmt::Debug for PostgresSettings {
    /// All but the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresSettings")
            .field("url", &without_secrets(&self.url))
            .field("max_connections", &self.max_connections)
            .field("acquire_timeout", &self.acquire_timeout)
            .field("statement_timeout", &self.statement_timeout)
            .finish()
    }
}

/// The URL without user, password and parameters (of which `password` may be one). A text that is no
/// URL is not shown at all: who knows what it is.
fn without_secrets(url: &str) -> String {
    let shown = url.split_once("://").map(|(scheme, rest)| {
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
        format!("{scheme}://{place}")
    });
    shown.unwrap_or_else(|| "not a URL".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_shown() {
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
