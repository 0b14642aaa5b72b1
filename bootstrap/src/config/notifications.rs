use belfry_domain::{LinkScheme, LinkSchemes};
use serde::Deserialize;

use super::values;

/// `notifications.*`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents the settings")]
pub struct Notifications {
    #[serde(deserialize_with = "values::parsed_list")]
    pub link_schemes: Vec<LinkScheme>,
}

impl Notifications {
    /// The schemes that links may have.
    pub fn links(&self) -> LinkSchemes {
        LinkSchemes::new(self.link_schemes.iter().cloned())
    }
}
