use std::time::Duration;

use serde::Deserialize;

use super::values;

/// `shutdown.*`
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents the settings")]
pub struct Shutdown {
    #[serde(deserialize_with = "values::duration")]
    pub spread: Duration,
    #[serde(deserialize_with = "values::duration")]
    pub timeout: Duration,
}
