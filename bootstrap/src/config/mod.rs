//! Settings: one file per section of `config.default.toml`, with its checks and its conversion into the
//! settings of the adapters.

mod admin;
mod amqp;
mod auth;
mod database;
mod error;
mod http;
mod layers;
mod limits;
mod log;
mod node;
mod retention;
mod shutdown;
mod socket;
mod values;

use serde::Deserialize;

pub use self::admin::Admin;
pub use self::amqp::{Amqp, EventsExchange, Ingest, IngestMode, NodeQueue};
pub use self::auth::{Auth, RequiredScopes};
pub use self::database::Database;
pub use self::error::BadSettings;
pub use self::http::{Http, HttpTls};
pub use self::layers::Layers;
pub use self::limits::{Limits, OverLimit};
pub use self::log::{Log, LogFormat};
pub use self::node::Node;
pub use self::retention::Retention;
pub use self::shutdown::Shutdown;
pub use self::socket::Socket;
pub use self::values::Secret;

/// All settings with their defaults and comments, in TOML. It is the lowest layer and the reference.
pub const DEFAULT_FILE: &str = include_str!("../../config.default.toml");

/// All settings.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents the settings")]
pub struct Config {
    pub http: Http,
    pub admin: Admin,
    pub database: Database,
    pub amqp: Amqp,
    pub auth: Auth,
    pub socket: Socket,
    pub limits: Limits,
    pub retention: Retention,
    pub node: Node,
    pub shutdown: Shutdown,
    pub log: Log,
}

impl Config {
    /// Merges the layers over the defaults and checks the result.
    pub fn load(layers: Layers) -> Result<Self, BadSettings> {
        let merged = layers.merge()?;
        let connections_is_explicit = merged.contains("limits.connections");
        let mut config: Self = merged.over_defaults(DEFAULT_FILE)?;
        config.limits.connections_is_explicit = connections_is_explicit;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), BadSettings> {
        if self.auth.is_development() && !self.http.listen.is_local() {
            return Err(BadSettings::new(format!(
                "http.listen is {}, but without a key in [auth] (such as auth.hs256_secret, \
                 auth.public_key_file or auth.jwks_url) Belfry uses a development key and may listen \
                 on loopback only",
                self.http.listen
            )));
        }
        self.http.check()?;
        self.database.check()?;
        self.amqp.check()?;
        self.auth.check()?;
        self.socket.check()?;
        self.retention.check()
    }
}

#[cfg(test)]
mod tests;
