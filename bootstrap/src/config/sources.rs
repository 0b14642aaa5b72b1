//! The sources of settings above the embedded defaults.

use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};

use super::environment::PREFIX;
use super::error::BadSettings;
use super::extract_error::{self, source_name};
use super::optional;
use super::settings_file::SettingsFile;
use super::url_parts::may_have_password;

/// Settings of one source, without empty values of optional settings.
#[derive(Debug)]
pub(super) struct Source {
    metadata: Metadata,
    settings: Dict,
    /// Paths of the optional settings that had an empty value.
    pub(super) empty: Vec<&'static str>,
}

impl Source {
    pub(super) fn file(file: &SettingsFile) -> Result<Self, BadSettings> {
        let metadata = Metadata::from("settings file", file.path.as_path());
        match Toml::string(&file.text).data() {
            Ok(mut profiles) => {
                let settings = profiles.remove(&Profile::Default).unwrap_or_default();
                Ok(Self::new(metadata, settings))
            }
            Err(mut error) => {
                error.metadata = Some(metadata);
                Err(extract_error::sentence(error))
            }
        }
    }

    /// `name` is the full name of the variable.
    pub(super) fn variable(name: &str, value: &str) -> Result<Self, BadSettings> {
        let path = name[PREFIX.len()..].to_lowercase().replace("__", ".");
        Self::text(&path, value, format!("variable {name}"))
    }

    pub(super) fn flag(path: &str, value: &str) -> Result<Self, BadSettings> {
        Self::text(path, value, format!("flag for {path}"))
    }

    /// One setting whose value stays a text. The type of the setting determines later how it is parsed.
    fn text(path: &str, value: &str, name: String) -> Result<Self, BadSettings> {
        let nested = figment::util::nest(path, Value::from(value));
        match nested.into_dict() {
            Some(settings) if path.split('.').all(|part| !part.is_empty()) => {
                Ok(Self::new(Metadata::named(name), settings))
            }
            _ => Err(BadSettings::new(format!("there is no setting {path:?} ({name})"))),
        }
    }

    fn new(metadata: Metadata, mut settings: Dict) -> Self {
        let empty = optional::remove_empty(&mut settings);
        Self { metadata, settings, empty }
    }

    /// Whether the source contains a secret, or a URL with a password.
    pub(super) fn has_secret(&self) -> bool {
        let settings = Value::from(self.settings.clone());
        let text = |path| settings.find_ref(path).and_then(Value::as_str);
        text("auth.hs256_secret").is_some()
            || ["database.url", "amqp.url"].into_iter().filter_map(text).any(may_have_password)
    }

    /// The name of the source for messages.
    pub(super) fn name(&self) -> String {
        source_name(&self.metadata)
    }
}

impl Provider for Source {
    fn metadata(&self) -> Metadata {
        self.metadata.clone()
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.settings.clone()))
    }
}
