use serde::Deserialize;

use super::error::BadSettings;
use super::url_parts::UrlParts;
use super::values::{self, Secret};

/// `database.*`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents the settings")]
pub struct Database {
    pub url: Secret,
    #[serde(deserialize_with = "values::or_text")]
    pub migrate: bool,
    #[serde(deserialize_with = "values::or_text")]
    pub max_connections: u32,
}

impl Database {
    pub(super) fn check(&self) -> Result<(), BadSettings> {
        const SCHEMES: [&str; 3] = ["sqlite:", "postgres://", "postgresql://"];
        if !SCHEMES.iter().any(|scheme| self.url.reveal().starts_with(scheme)) {
            return Err(BadSettings::new(
                "database.url must begin with sqlite:, postgres:// or postgresql://",
            ));
        }
        if !self.url.reveal().starts_with("sqlite:") {
            check_postgres(self.url.reveal())?;
        }
        // With PostgreSQL, commands from the ingest queue have a connection pool of their own, so each of
        // the two pools needs a connection. SQLite ignores the setting.
        if self.max_connections < 2 {
            return Err(BadSettings::new("database.max_connections must be at least 2"));
        }
        Ok(())
    }
}

/// Rejects URLs that the database library (sqlx) misunderstands. sqlx logs the name and the value of an
/// unknown parameter, although the value may be a secret. It treats a list of hosts as the name of one host.
fn check_postgres(url: &str) -> Result<(), BadSettings> {
    /// The parameters that sqlx 0.9 knows.
    const PARAMETERS: [&str; 18] = [
        "sslmode",
        "ssl-mode",
        "sslrootcert",
        "ssl-root-cert",
        "ssl-ca",
        "sslcert",
        "ssl-cert",
        "sslkey",
        "ssl-key",
        "statement-cache-capacity",
        "host",
        "hostaddr",
        "port",
        "dbname",
        "user",
        "password",
        "application_name",
        "options",
    ];
    let Some(url) = UrlParts::parse(url) else {
        return Err(BadSettings::new(
            "database.url has an @ outside its place: \
             percent-encode special characters of the password (/ as %2F, ? as %3F, # as %23)",
        ));
    };
    if url.has_several_hosts() {
        return Err(BadSettings::new(
            "database.url names several hosts, but Belfry connects to one; use a DNS name, \
             a proxy or a virtual address that leads to the primary server",
        ));
    }
    for (name, _) in url.parameters() {
        let is_option = name.starts_with("options[") || name.starts_with("options%5B");
        if !is_option && !PARAMETERS.contains(&name) {
            return Err(BadSettings::new(format!(
                "database.url has the parameter {name:?}, which Belfry does not support; remove it"
            )));
        }
    }
    Ok(())
}
