use std::net::SocketAddr;

use serde::Deserialize;

/// `admin.*`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents the settings")]
pub struct Admin {
    pub listen: SocketAddr,
}
