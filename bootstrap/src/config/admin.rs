use std::net::SocketAddr;

use serde::Deserialize;

use super::values;

/// `admin.*`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents the settings")]
pub struct Admin {
    pub listen: SocketAddr,
    #[serde(deserialize_with = "values::list")]
    pub hosts: Vec<String>,
}
