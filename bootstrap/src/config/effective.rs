//! The settings in use and where they come from, for `belfry check-config`.

use std::fmt;

use figment::value::{Dict, Value};
use figment::{Figment, Provider};

use super::extract_error::source_name;
use super::url_parts::UrlParts;

/// A setting that has a value. `Display` is a line of TOML without secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EffectiveSetting {
    /// The path of the setting, such as `http.listen`.
    pub path: String,
    /// The value in TOML. Secrets and passwords are replaced by `…`.
    pub value: String,
    /// `default`, or the variable, flag or file that sets it.
    pub source: String,
}

impl EffectiveSetting {
    pub(super) fn all(figment: &Figment) -> Result<Vec<Self>, Box<figment::Error>> {
        let mut all = Vec::new();
        for settings in figment.data()?.values() {
            collect(figment, "", settings, &mut all);
        }
        Ok(all)
    }
}

impl fmt::Display for EffectiveSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}  # {}", self.path, self.value, self.source)
    }
}

fn collect(figment: &Figment, prefix: &str, settings: &Dict, all: &mut Vec<EffectiveSetting>) {
    for (name, value) in settings {
        let path = format!("{prefix}{name}");
        match value {
            Value::Dict(_, section) => collect(figment, &format!("{path}."), section, all),
            value => {
                // figment gives this name to the embedded defaults, and to no other source.
                let metadata = figment.get_metadata(value.tag());
                let source = metadata
                    .filter(|metadata| metadata.name != "TOML source string")
                    .map_or_else(|| "default".to_owned(), source_name);
                all.push(EffectiveSetting { value: redacted(&path, value), path, source });
            }
        }
    }
}

/// The value in TOML, without secrets. JSON has the same form for texts, numbers and lists.
fn redacted(path: &str, value: &Value) -> String {
    let text = match (path, value) {
        ("auth.hs256_secret", _) => "…".to_owned(),
        ("database.url" | "amqp.url" | "auth.jwks_url", Value::String(_, url))
            if !url.starts_with("sqlite:") =>
        {
            UrlParts::parse(url).map_or_else(|| "…".to_owned(), |url| url.to_string())
        }
        (_, value) => return serde_json::to_string(value).unwrap_or_default(),
    };
    serde_json::Value::from(text).to_string()
}
