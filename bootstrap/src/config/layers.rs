//! The layers of settings: the embedded defaults and the sources that override them.

use std::path::PathBuf;

use figment::Figment;
use figment::providers::{Format, Toml};
use serde::de::DeserializeOwned;

use super::effective::EffectiveSetting;
use super::environment::SettingVariables;
use super::error::BadSettings;
use super::extract_error::sentence;
use super::flags;
use super::settings_file::SettingsFile;
use super::sources::Source;

/// Sources of settings in increasing precedence. The embedded defaults are below all of them.
#[derive(Debug, Default)]
pub struct Layers {
    /// The file from `--config` or `BELFRY_CONFIG`. It must exist.
    pub file: Option<PathBuf>,
    /// `BELFRY_…` variables: full name and value.
    pub variables: Vec<(String, String)>,
    /// Flags: path of the setting and value.
    pub flags: Vec<(String, String)>,
    /// Names of `BELFRY_…` variables that an orchestrator has set. They are not settings.
    pub injected: Vec<String>,
}

impl Layers {
    /// The file, this process's environment and the flags.
    pub fn of_process(
        file: Option<PathBuf>,
        flags: Vec<(String, String)>,
    ) -> Result<Self, BadSettings> {
        let SettingVariables { settings: variables, injected } =
            SettingVariables::of(std::env::vars_os())?;
        Ok(Self { file, variables, flags, injected })
    }

    /// Merges the file, the variables and the flags.
    pub(super) fn merge(self) -> Result<Merged, BadSettings> {
        let file = SettingsFile::open(self.file)?;
        let mut sources = Vec::new();
        if let Some(file) = &file {
            sources.push(Source::file(file)?);
        }
        for (name, value) in &self.variables {
            sources.push(Source::variable(name, value)?);
        }
        for (path, value) in &self.flags {
            flags::check(path, value)?;
            sources.push(Source::flag(path, value)?);
        }
        let mut merged = Merged {
            figment: Figment::new(),
            // Only the first source can be a file.
            file_has_secret: file.is_some() && sources[0].has_secret(),
            file: file.map(|it| it.path),
            empty: Vec::new(),
        };
        for source in sources {
            merged.empty.extend(source.empty.iter().map(|path| (*path, source.name())));
            merged.figment = merged.figment.merge(source);
        }
        Ok(merged)
    }
}

/// The merged layers.
pub(super) struct Merged {
    figment: Figment,
    /// The settings file in use.
    pub(super) file: Option<PathBuf>,
    pub(super) file_has_secret: bool,
    /// Path and source of optional settings with an empty value, which counts as unset.
    pub(super) empty: Vec<(&'static str, String)>,
}

impl Merged {
    /// Whether a layer above the defaults contains the setting at `path`.
    pub(super) fn contains(&self, path: &str) -> bool {
        self.figment.contains(path)
    }

    /// All settings, with the default where no layer has a value.
    pub(super) fn over_defaults<T: DeserializeOwned>(
        &self,
        defaults: &str,
    ) -> Result<T, BadSettings> {
        self.joined(defaults).extract().map_err(sentence)
    }

    /// All settings that have a value, sorted by section.
    pub(super) fn effective(&self, defaults: &str) -> Result<Vec<EffectiveSetting>, BadSettings> {
        EffectiveSetting::all(&self.joined(defaults)).map_err(|error| sentence(*error))
    }

    fn joined(&self, defaults: &str) -> Figment {
        // `join` adds only the settings that are missing. The others keep their values and sources.
        self.figment.clone().join(Toml::string(defaults))
    }
}
