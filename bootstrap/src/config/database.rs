use serde::Deserialize;

use super::error::BadSettings;
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
        // With PostgreSQL, commands from the ingest queue have a connection pool of their own, so each of
        // the two pools needs a connection. SQLite ignores the setting.
        if self.max_connections < 2 {
            return Err(BadSettings::new("database.max_connections must be at least 2"));
        }
        Ok(())
    }
}
