//! Settings: one file per section of `config.default.toml`, with its checks and its conversion into the
//! settings of the adapters.

mod admin;
mod amqp;
mod auth;
mod database;
mod effective;
mod environment;
mod error;
mod extract_error;
mod flags;
mod http;
mod layers;
mod limits;
mod log;
mod node;
mod notifications;
mod optional;
mod retention;
mod settings_file;
mod shutdown;
mod socket;
mod sources;
mod url_parts;
mod values;

use std::path::PathBuf;

use belfry_adapters::inbound::amqp::ForwardRule;
use belfry_adapters::transport::ListenAddress;
use serde::Deserialize;

use self::auth::KEY_SETTINGS;
use self::layers::Merged;

pub use self::admin::Admin;
pub use self::amqp::{
    Amqp, DevicesExchange, EventsExchange, Forward, Ingest, IngestMode, NodeQueue,
};
pub use self::auth::{Auth, RequiredScopes};
pub use self::database::Database;
pub use self::effective::EffectiveSetting;
pub use self::error::BadSettings;
pub use self::http::{Http, HttpTls};
pub use self::layers::Layers;
pub use self::limits::{Limits, OverLimit};
pub use self::log::{InvalidLogLevels, Log, LogFormat, LogLevels};
pub use self::node::Node;
pub use self::notifications::Notifications;
pub use self::retention::Retention;
pub use self::shutdown::Shutdown;
pub use self::socket::{OnRefusal, Socket, SocketEvents, SocketMessages};
pub use self::values::Secret;

/// All settings with their defaults and comments, in TOML. They are the lowest layer of settings and their
/// reference.
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
    pub notifications: Notifications,
    pub retention: Retention,
    pub node: Node,
    pub shutdown: Shutdown,
    pub log: Log,
    /// Not a setting: the settings file in use.
    #[serde(skip)]
    pub settings_file: Option<PathBuf>,
    /// Not a setting: whether that file contains a secret or a password.
    #[serde(skip)]
    pub settings_file_has_secret: bool,
}

/// Settings with their sources.
#[derive(Debug, Clone)]
pub struct Effective {
    /// The checked settings.
    pub config: Config,
    /// Every setting that has a value.
    pub settings: Vec<EffectiveSetting>,
    /// Names of `BELFRY_…` variables that an orchestrator has set. They are not settings.
    pub injected: Vec<String>,
}

impl Config {
    /// Whether Belfry serves the development page and its sign-in: with a development key, unless another
    /// setting shows that clients of other machines, other sites or a proxy connect. The page shows an inbox of
    /// Belfry, which forward mode does not have.
    pub fn serves_development_page(&self) -> bool {
        let is_on_unix_socket = matches!(self.http.listen, ListenAddress::Unix(_));
        self.auth.is_development()
            && self.amqp.ingest.mode == IngestMode::Store
            && !is_on_unix_socket
            && self.http.trusted_proxies.is_empty()
            && self.http.cors_origins.is_empty()
            && self.http.tls.certificate_file.is_none()
    }

    /// Merges the layers over the defaults and checks the result.
    pub fn load(layers: Layers) -> Result<Self, BadSettings> {
        Self::of_merged(&layers.merge()?)
    }

    /// Like [`load`](Self::load), with the source of each setting.
    pub fn effective(mut layers: Layers) -> Result<Effective, BadSettings> {
        let injected = std::mem::take(&mut layers.injected);
        let merged = layers.merge()?;
        let config = Self::of_merged(&merged)?;
        Ok(Effective { config, settings: merged.effective(DEFAULT_FILE)?, injected })
    }

    fn of_merged(merged: &Merged) -> Result<Self, BadSettings> {
        let mut config: Self = merged.over_defaults(DEFAULT_FILE)?;
        config.limits.connections_is_explicit = merged.contains("limits.connections");
        config.settings_file.clone_from(&merged.file);
        config.settings_file_has_secret = merged.file_has_secret;
        config.check_key_is_not_lost(&merged.empty)?;
        config.check()?;
        Ok(config)
    }

    /// Rejects a key with an empty value if no other key is set. An empty value counts as unset, so Belfry would
    /// otherwise silently use a development key.
    fn check_key_is_not_lost(&self, empty: &[(&str, String)]) -> Result<(), BadSettings> {
        let lost = empty.iter().find(|(path, _)| KEY_SETTINGS.contains(path));
        match lost {
            Some((path, source)) if self.auth.is_development() => Err(BadSettings::new(format!(
                "{path} ({source}) is empty, and no other key is set in [auth]; set it, or remove it \
                 to use a development key"
            ))),
            _ => Ok(()),
        }
    }

    /// Rejects the origin `*` together with cookies, because a browser adds its cookies to the requests of every
    /// page.
    fn check_any_origin(&self) -> Result<(), BadSettings> {
        let setting = match (self.http.allows_any_origin(), &self.auth.cookie) {
            (true, Some(_)) => "auth.cookie",
            (true, None) if self.http.cors_credentials => "http.cors_credentials",
            _ => return Ok(()),
        };
        Err(BadSettings::new(format!(
            "http.cors_origins is \"*\", but {setting} is set: any page could use the cookies of a browser; \
             list the origins of your pages"
        )))
    }

    /// Rejects forwarded events with the name of one of Belfry's own events, because a device could not
    /// distinguish them.
    fn check_forwarded_events(&self) -> Result<(), BadSettings> {
        let table = self.socket.names()?;
        let mut events = self.amqp.forward.events.iter().map(ForwardRule::event);
        match events.find(|event| table.events.contains(event)) {
            Some(event) => Err(BadSettings::new(format!(
                "amqp.forward.events: Belfry sends its own event under the name {event}, because of \
                 socket.compat or socket.events"
            ))),
            None => Ok(()),
        }
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
        self.check_any_origin()?;
        self.database.check()?;
        self.amqp.check()?;
        self.auth.check()?;
        self.socket.check()?;
        self.check_forwarded_events()?;
        self.retention.check()?;
        match self.auth.min_revocation_retention() {
            Some(min) if self.retention.revocations < min => Err(BadSettings::new(format!(
                "retention.revocations is {:?}, but with auth.max_lifetime a revoked token may not expire for \
                     {min:?} (auth.leeway included), and would become valid again",
                self.retention.revocations
            ))),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
