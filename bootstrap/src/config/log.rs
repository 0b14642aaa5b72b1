use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

use super::values;

/// `log.*`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents the settings")]
pub struct Log {
    pub format: LogFormat,
    #[serde(deserialize_with = "values::text")]
    pub level: LogLevels,
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// A level for all modules, levels of single modules, or both: `info,belfry_adapters=debug`. Modules without a
/// level log from `info` on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLevels(String);

/// An entry of the text is neither a level nor a module with a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected error, warn, info, debug or trace, or filters per module such as \
     info,belfry_adapters=debug"
)]
pub struct InvalidLogLevels;

impl FromStr for LogLevels {
    type Err = InvalidLogLevels;

    /// Rejects unknown levels. The logging library would take an unknown level for the name of a module, and
    /// then log only that module.
    fn from_str(text: &str) -> Result<Self, InvalidLogLevels> {
        let is_level = |text: &str| {
            let levels = ["error", "warn", "info", "debug", "trace"];
            levels.iter().any(|level| text.eq_ignore_ascii_case(level))
        };
        let is_off = |text: &str| text.eq_ignore_ascii_case("off");
        let mut levels = Vec::new();
        let mut has_general_level = false;
        for entry in text.split(',').map(str::trim) {
            match entry.rsplit_once('=') {
                Some((module, level))
                    if !module.trim().is_empty() && (is_level(level) || is_off(level)) => {}
                None if is_level(entry) => has_general_level = true,
                _ => return Err(InvalidLogLevels),
            }
            levels.push(entry);
        }
        if !has_general_level {
            levels.insert(0, "info");
        }
        Ok(Self(levels.join(",")))
    }
}

/// The text in the form that the logging library reads.
impl fmt::Display for LogLevels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_known_words_with_or_without_a_module() {
        for (text, expected) in [
            ("info", "info"),
            ("WARN", "WARN"),
            ("info,belfry_adapters=debug", "info,belfry_adapters=debug"),
            ("belfry=trace, warn", "belfry=trace,warn"),
            ("belfry_adapters=debug", "info,belfry_adapters=debug"),
            ("lapin=off", "info,lapin=off"),
        ] {
            assert_eq!(text.parse::<LogLevels>().unwrap().to_string(), expected, "{text}");
        }
        for text in [
            "",
            "warning",
            "fatal",
            "verbose",
            "0",
            "off",
            "info,",
            "=debug",
            "belfry=loud",
            "a=b=c",
        ] {
            assert_eq!(text.parse::<LogLevels>(), Err(InvalidLogLevels), "{text}");
        }
    }
}
