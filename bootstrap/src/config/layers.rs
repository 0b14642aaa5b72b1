use std::path::{Path, PathBuf};

use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::{Config, DEFAULT_FILE};

/// Where settings come from, each layer over the one before: the embedded defaults, a file,
/// variables, flags.
#[derive(Debug, Default)]
pub struct Layers {
    /// The file that was asked for by flag or variable; it must be there.
    pub file: Option<PathBuf>,
    /// `BELFRY_…` variables, by their full names.
    pub variables: Vec<(String, String)>,
    /// Flags, by the path of their setting.
    pub flags: Vec<(String, String)>,
}

/// A setting is wrong, or there is none of that name. Says which, and where it came from.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadSettings(String);

impl BadSettings {
    pub(super) fn new(problem: impl Into<String>) -> Self {
        Self(problem.into())
    }
}

impl Layers {
    const PREFIX: &str = "BELFRY_";
    /// Variables that begin with the prefix and are no settings.
    const NO_SETTINGS: [&str; 4] = ["BELFRY_CONFIG", "BELFRY_TOKEN", "BELFRY_URL", "BELFRY_TEST_"];
    /// The file that is taken if it lies there.
    const USUAL_FILE: &str = "belfry.toml";

    /// The layers of this process, with these flags.
    pub fn of_process(file: Option<PathBuf>, flags: Vec<(String, String)>) -> Self {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| Self::is_setting(name))
            .collect();
        Self { file, variables, flags }
    }

    fn is_setting(name: &str) -> bool {
        name.starts_with(Self::PREFIX)
            && !Self::NO_SETTINGS.iter().any(|other| name.starts_with(other))
    }

    /// Reads and checks all of them.
    pub fn load(self) -> Result<Config, BadSettings> {
        let mut figment = Figment::from(Toml::string(DEFAULT_FILE));
        figment = match &self.file {
            Some(file) if !file.is_file() => {
                return Err(BadSettings(format!("there is no settings file {}", file.display())));
            }
            Some(file) => figment.merge(Toml::file_exact(file)),
            None if Path::new(Self::USUAL_FILE).is_file() => {
                figment.merge(Toml::file_exact(Self::USUAL_FILE))
            }
            None => figment,
        };
        for (name, value) in self.variables {
            let path = name[Self::PREFIX.len()..].to_lowercase().replace("__", ".");
            figment = figment.merge(Text { path, value, source: format!("variable {name}") });
        }
        for (path, value) in self.flags {
            let source = format!("flag for {path}");
            figment = figment.merge(Text { path, value, source });
        }
        let config: Config = figment.extract().map_err(|error| BadSettings(say(error)))?;
        config.check()
    }
}

/// One setting as text. It is not guessed whether it looks like a number: the setting knows.
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

/// The first problem in a sentence that names the setting and its source, but never its value, which
/// may be a secret.
fn say(error: figment::Error) -> String {
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
                "there is no setting {section}{source}; {} knows {}",
                section.rsplit_once('.').map_or("the top level", |(section, _)| section),
                known.join(", ")
            )
        }
        Kind::InvalidType(_, expected) => {
            format!("setting {path}{source} has the wrong type: expected {expected}")
        }
        Kind::InvalidValue(_, expected) => {
            format!("setting {path}{source} has a wrong value: expected {expected}")
        }
        Kind::UnknownVariant(found, known) => {
            format!("setting {path}{source} is {found}, but must be one of {}", known.join(", "))
        }
        // A syntax error quotes the file, where a secret may stand: only where and why are told.
        Kind::Message(message) if path.is_empty() => {
            let mut lines = message.lines();
            let place = lines.next().unwrap_or_default();
            let reason = lines.next_back().map_or_else(String::new, |why| format!(": {why}"));
            format!("settings{source}: {place}{reason}")
        }
        Kind::Message(message) => format!("setting {path}{source}: {message}"),
        other => format!("setting {path}{source}: {other}"),
    }
}
