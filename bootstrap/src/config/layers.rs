//! The sources of settings, and errors that name a setting and its source.

use std::path::{Path, PathBuf};

use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use serde::de::DeserializeOwned;

use super::error::BadSettings;

/// Sources of settings in increasing precedence. The embedded defaults are below all of them.
#[derive(Debug, Default)]
pub struct Layers {
    /// The file from `--config` or `BELFRY_CONFIG`. It must exist.
    pub file: Option<PathBuf>,
    /// `BELFRY_…` variables: full name and value.
    pub variables: Vec<(String, String)>,
    /// Flags: path of the setting and value.
    pub flags: Vec<(String, String)>,
}

impl Layers {
    const PREFIX: &str = "BELFRY_";
    /// Prefixes of variables that are not settings.
    const NOT_SETTINGS: [&str; 4] = ["BELFRY_CONFIG", "BELFRY_TOKEN", "BELFRY_URL", "BELFRY_TEST_"];
    /// The file that is read if it exists and no other file is named.
    const DEFAULT_PATH: &str = "belfry.toml";

    /// The file, this process's environment and the flags.
    pub fn of_process(file: Option<PathBuf>, flags: Vec<(String, String)>) -> Self {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| Self::is_setting(name))
            .collect();
        Self { file, variables, flags }
    }

    fn is_setting(name: &str) -> bool {
        name.starts_with(Self::PREFIX)
            && !Self::NOT_SETTINGS.iter().any(|other| name.starts_with(other))
    }

    /// Merges the file, the variables and the flags.
    pub(super) fn merge(self) -> Result<Merged, BadSettings> {
        let mut figment = match &self.file {
            Some(file) if !file.is_file() => {
                let problem = format!("there is no settings file {}", file.display());
                return Err(BadSettings::new(problem));
            }
            Some(file) => Figment::from(Toml::file_exact(file)),
            None if Path::new(Self::DEFAULT_PATH).is_file() => {
                Figment::from(Toml::file_exact(Self::DEFAULT_PATH))
            }
            None => Figment::new(),
        };
        for (name, value) in self.variables {
            let path = name[Self::PREFIX.len()..].to_lowercase().replace("__", ".");
            figment = figment.merge(Text { path, value, source: format!("variable {name}") });
        }
        for (path, value) in self.flags {
            let source = format!("flag for {path}");
            figment = figment.merge(Text { path, value, source });
        }
        Ok(Merged(figment))
    }
}

/// The merged layers.
pub(super) struct Merged(Figment);

impl Merged {
    /// Whether a layer above the defaults sets this.
    pub(super) fn contains(&self, path: &str) -> bool {
        self.0.contains(path)
    }

    /// All settings, with the default where no layer has a value.
    pub(super) fn over_defaults<T: DeserializeOwned>(
        self,
        defaults: &str,
    ) -> Result<T, BadSettings> {
        // `join` keeps the values that are there already, and their sources.
        self.0
            .join(Toml::string(defaults))
            .extract()
            .map_err(|error| BadSettings::new(describe(error)))
    }
}

/// One setting as text. Whether it is a number is decided by the type of the setting.
struct Text {
    path: String,
    value: String,
    source: String,
}

impl Provider for Text {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.source.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let nested = figment::util::nest(&self.path, Value::from(self.value.as_str()));
        let dict = nested.into_dict().unwrap_or_default();
        Ok(Profile::Default.collect(dict))
    }
}

/// The first problem as one sentence with the setting and its source. It never has the value, which may be
/// a secret.
fn describe(error: figment::Error) -> String {
    use figment::error::Kind;
    let Some(error) = error.into_iter().next() else {
        return "the settings cannot be read".to_owned();
    };
    let path = error.path.join(".");
    let source = error.metadata.as_ref().map_or_else(String::new, |metadata| {
        match metadata.source.as_ref().and_then(|source| source.file_path()) {
            Some(file) => format!(" (in {})", file.display()),
            None => format!(" ({})", metadata.name),
        }
    });
    match &error.kind {
        Kind::UnknownField(field, known) => {
            let section = if path.is_empty() { field.clone() } else { path.clone() };
            format!(
                "there is no setting {section}{source}; the settings of {} are {}",
                section.rsplit_once('.').map_or("the top level", |(section, _)| section),
                known.join(", ")
            )
        }
        Kind::InvalidType(_, expected) => {
            format!("setting {path}{source} has the wrong type: expected {expected}")
        }
        Kind::InvalidValue(_, expected) => {
            format!("setting {path}{source} has an invalid value: expected {expected}")
        }
        Kind::UnknownVariant(found, known) => {
            format!("setting {path}{source} is {found}, but must be one of {}", known.join(", "))
        }
        // A syntax error quotes the file, which may hold secrets: keep the position and the reason only.
        Kind::Message(message) if path.is_empty() => {
            let mut lines = message.lines();
            let position = lines.next().unwrap_or_default();
            let reason = lines.next_back().map_or_else(String::new, |why| format!(": {why}"));
            format!("settings{source}: {position}{reason}")
        }
        Kind::Message(message) => format!("setting {path}{source}: {message}"),
        other => format!("setting {path}{source}: {other}"),
    }
}
