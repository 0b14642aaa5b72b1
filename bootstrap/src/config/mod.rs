//! Settings: where they come from, and what they must be.

mod layers;
mod values;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use belfry_adapters::inbound::rest::{AllowedHeader, AllowedOrigin, BasePath};
use belfry_adapters::transport::ListenAddress;
use serde::Deserialize;

pub use layers::{BadSettings, Layers};
pub use values::Secret;

/// The commented default file: the first layer, and the reference of all settings.
pub const DEFAULT_FILE: &str = include_str!("../../config.default.toml");

/// All settings. What each means is said in [`DEFAULT_FILE`].
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the default file is their documentation")]
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

/// `http.*`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the default file is their documentation")]
pub struct Http {
    #[serde(deserialize_with = "values::text")]
    pub listen: ListenAddress,
    #[serde(deserialize_with = "values::text")]
    pub base_path: BasePath,
    #[serde(deserialize_with = "values::parsed_list")]
    pub cors_origins: Vec<AllowedOrigin>,
    #[serde(deserialize_with = "values::or_text")]
    pub cors_credentials: bool,
    #[serde(deserialize_with = "values::parsed_list")]
    pub cors_headers: Vec<AllowedHeader>,
    #[serde(deserialize_with = "values::list")]
    pub trusted_proxies: Vec<String>,
    #[serde(deserialize_with = "values::duration")]
    pub header_timeout: Duration,
    #[serde(deserialize_with = "values::duration")]
    pub keep_alive: Duration,
    #[serde(deserialize_with = "values::duration")]
    pub request_timeout: Duration,
    #[serde(deserialize_with = "values::or_text")]
    pub max_body: usize,
    #[serde(default)]
    pub tls: HttpTls,
}

/// `http.tls.*`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the default file is their documentation")]
pub struct HttpTls {
    #[serde(default)]
    pub certificate_file: Option<PathBuf>,
    #[serde(default)]
    pub key_file: Option<PathBuf>,
}

impl Http {
    /// What a URL of it begins with.
    pub fn scheme(&self) -> &'static str {
        if self.tls.certificate_file.is_some() { "https" } else { "http" }
    }

    fn check(&self) -> Result<(), BadSettings> {
        if self.tls.certificate_file.is_some() != self.tls.key_file.is_some() {
            return Err(BadSettings::new(
                "http.tls.certificate_file and http.tls.key_file are both needed, or neither",
            ));
        }
        if self.header_timeout.is_zero() {
            return Err(BadSettings::new("http.header_timeout must be longer than nothing"));
        }
        if self.keep_alive.is_zero() {
            return Err(BadSettings::new(
                "http.keep_alive must be longer than nothing, and than the idle time of a proxy in front",
            ));
        }
        Ok(())
    }
}

/// `admin.*`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the default file is their documentation")]
pub struct Admin {
    pub listen: SocketAddr,
}

/// `database.*`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the default file is their documentation")]
pub struct Database {
    pub url: Secret,
    #[serde(deserialize_with = "values::or_text")]
    pub migrate: bool,
    #[serde(deserialize_with = "values::or_text")]
    pub max_connections: u32,
}

/// `amqp.*`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the default file is their documentation")]
pub struct Amqp {
    #[serde(default, deserialize_with = "values::optional_secret")]
    pub url: Option<Secret>,
    pub ingest: Ingest,
    pub events: Events,
    pub node: NodeQueue,
}

/// `amqp.ingest.*`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the default file is their documentation")]
pub struct Ingest {
    pub queue: String,
    pub mode: IngestMode,
    #[serde(deserialize_with = "values::or_text")]
    pub prefetch: u16,
    #[serde(deserialize_with = "values::or_text")]
    pub only_node: bool,
}

/// What is done with what other services send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IngestMode {
    /// Inboxes are kept here.
    Store,
    /// Events are passed on as they came.
    Forward,
}

/// `amqp.events.*`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the default file is their documentation")]
pub struct Events {
    pub exchange: String,
}

/// `amqp.node.*`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the default file is their documentation")]
pub struct NodeQueue {
    pub queue_prefix: String,
    #[serde(deserialize_with = "values::duration")]
    pub expires: Duration,
    #[serde(deserialize_with = "values::or_text")]
    pub max_length: u32,
}

/// `auth.*`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the default file is their documentation")]
pub struct Auth {
    #[serde(default, deserialize_with = "values::optional_secret")]
    pub hs256_secret: Option<Secret>,
    #[serde(default, deserialize_with = "values::list")]
    pub hs256_secret_files: Vec<PathBuf>,
    #[serde(default, deserialize_with = "values::list")]
    pub public_key_file: Vec<PathBuf>,
    #[serde(default, deserialize_with = "values::list")]
    pub jwks_file: Vec<PathBuf>,
    #[serde(default)]
    pub jwks_url: Option<String>,
    #[serde(default)]
    pub jwks_ca_file: Option<PathBuf>,
    #[serde(deserialize_with = "values::duration")]
    pub jwks_refresh: Duration,
    #[serde(deserialize_with = "values::duration")]
    pub jwks_cooldown: Duration,
    #[serde(default, deserialize_with = "values::optional_duration")]
    pub jwks_max_stale: Option<Duration>,
    #[serde(deserialize_with = "values::duration")]
    pub jwks_timeout: Duration,
    #[serde(deserialize_with = "values::list")]
    pub algorithms: Vec<String>,
    #[serde(default)]
    pub issuer: Option<String>,
    #[serde(default, deserialize_with = "values::list")]
    pub audience: Vec<String>,
    #[serde(deserialize_with = "values::duration")]
    pub leeway: Duration,
    pub user_claim: String,
    pub scope_claim: String,
    pub scopes: RequiredScopes,
    pub development_key_file: PathBuf,
}

/// `auth.scopes.*`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the default file is their documentation")]
pub struct RequiredScopes {
    pub read: String,
    pub change: String,
    pub create: String,
    pub revoke: String,
}

impl Auth {
    /// Whether nobody said how tokens are checked, so that Belfry makes its own.
    pub fn is_development(&self) -> bool {
        self.hs256_secret.is_none()
            && self.hs256_secret_files.is_empty()
            && self.public_key_file.is_empty()
            && self.jwks_file.is_empty()
            && self.jwks_url.is_none()
    }

    fn check(&self) -> Result<(), BadSettings> {
        if self.jwks_ca_file.is_some() && self.jwks_url.is_none() {
            return Err(BadSettings::new(
                "auth.jwks_ca_file is set, but auth.jwks_url, which it is for, is not",
            ));
        }
        if [self.jwks_refresh, self.jwks_cooldown, self.jwks_timeout].iter().any(Duration::is_zero)
        {
            return Err(BadSettings::new(
                "auth.jwks_refresh, auth.jwks_cooldown and auth.jwks_timeout must be longer than \
                 nothing",
            ));
        }
        Ok(())
    }
}

/// `socket.*`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the default file is their documentation")]
pub struct Socket {
    #[serde(deserialize_with = "values::duration")]
    pub ping_interval: Duration,
    #[serde(deserialize_with = "values::duration")]
    pub ping_timeout: Duration,
    #[serde(deserialize_with = "values::duration")]
    pub connect_timeout: Duration,
    #[serde(deserialize_with = "values::or_text")]
    pub queue: usize,
    #[serde(deserialize_with = "values::or_text")]
    pub queue_bytes: usize,
    #[serde(deserialize_with = "values::or_text")]
    pub max_payload: usize,
    #[serde(deserialize_with = "values::or_text")]
    pub token_in_query: bool,
    #[serde(deserialize_with = "values::or_text")]
    pub catch_up_limit: usize,
}

/// `limits.*`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the default file is their documentation")]
pub struct Limits {
    #[serde(deserialize_with = "values::or_text")]
    pub connections: usize,
    #[serde(deserialize_with = "values::or_text")]
    pub connections_per_address: usize,
    #[serde(deserialize_with = "values::or_text")]
    pub sessions_per_user: usize,
    pub over: Over,
    #[serde(deserialize_with = "values::or_text")]
    pub handshakes_per_second: u32,
    #[serde(deserialize_with = "values::or_text")]
    pub handshakes_per_address: u32,
    #[serde(deserialize_with = "values::or_text")]
    pub messages_per_second: u32,
    #[serde(deserialize_with = "values::or_text")]
    pub requests_per_second: u32,
    #[serde(deserialize_with = "values::or_text")]
    pub writes_per_second: u32,
    #[serde(deserialize_with = "values::or_text")]
    pub work_per_user: u32,
}

/// Which session goes where a user would have too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Over {
    /// The one that has been there for longest.
    Oldest,
    /// The new one.
    Newest,
}

/// `retention.*`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the default file is their documentation")]
pub struct Retention {
    #[serde(default, deserialize_with = "values::optional_duration")]
    pub notifications: Option<Duration>,
    #[serde(deserialize_with = "values::duration")]
    pub deleted: Duration,
    #[serde(deserialize_with = "values::duration")]
    pub idempotency_keys: Duration,
    #[serde(deserialize_with = "values::duration")]
    pub revocations: Duration,
    #[serde(deserialize_with = "values::duration")]
    pub every: Duration,
}

/// `node.*`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the default file is their documentation")]
pub struct Node {
    #[serde(default)]
    pub name: Option<String>,
}

/// `shutdown.*`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the default file is their documentation")]
pub struct Shutdown {
    #[serde(deserialize_with = "values::duration")]
    pub spread: Duration,
    #[serde(deserialize_with = "values::duration")]
    pub timeout: Duration,
}

/// `log.*`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the default file is their documentation")]
pub struct Log {
    pub format: LogFormat,
    pub level: String,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines, one object a line.
    Json,
}

impl Config {
    /// Checks what no single setting can tell.
    fn check(self) -> Result<Self, BadSettings> {
        if self.auth.is_development() && !self.http.listen.is_local() {
            return Err(BadSettings::new(format!(
                "http.listen is {}, but without auth.hs256_secret, auth.public_key_file, \
                 auth.jwks_url or another of the keys in [auth] tokens are signed with a development key, which is for loopback only",
                self.http.listen
            )));
        }
        self.auth.check()?;
        self.http.check()?;
        let url = self.database.url.reveal();
        if !["sqlite:", "postgres://", "postgresql://"].iter().any(|one| url.starts_with(one)) {
            return Err(BadSettings::new(
                "database.url must begin with sqlite:, postgres:// or postgresql://",
            ));
        }
        if let Some(url) = &self.amqp.url
            && !["amqp://", "amqps://"].iter().any(|one| url.reveal().starts_with(one))
        {
            return Err(BadSettings::new("amqp.url must begin with amqp:// or amqps://"));
        }
        if self.socket.queue == 0
            || self.database.max_connections < 2
            || self.amqp.ingest.prefetch == 0
        {
            return Err(BadSettings::new(
                "socket.queue and amqp.ingest.prefetch must be at least 1, \
                 database.max_connections at least 2",
            ));
        }
        let RequiredScopes { create, revoke, .. } = &self.auth.scopes;
        if create.is_empty() || revoke.is_empty() {
            return Err(BadSettings::new(
                "auth.scopes.create and auth.scopes.revoke must name a scope: what they guard \
                 concerns every user",
            ));
        }
        if self.retention.every.is_zero() {
            return Err(BadSettings::new("retention.every must be longer than nothing"));
        }
        Ok(self)
    }

    /// This node's name among others: as set, or the host's name and the port it listens on, which
    /// both are there again after a restart. With a free port there is nothing to come back to. In the
    /// place of a port a Unix socket has its file's name.
    pub fn node_name(&self, listening_at: &ListenAddress) -> String {
        self.node.name.clone().unwrap_or_else(|| {
            let host = std::fs::read_to_string("/proc/sys/kernel/hostname")
                .or_else(|_| std::env::var("HOSTNAME"))
                .unwrap_or_else(|_| "belfry".to_owned());
            let host = host.trim();
            match listening_at {
                ListenAddress::Tcp(address) => format!("{host}-{}", address.port()),
                ListenAddress::Unix(path) => {
                    let name = path.file_stem().unwrap_or_default();
                    format!("{host}-{}", name.to_string_lossy())
                }
            }
        })
    }
}

#[cfg(test)]
mod tests;
