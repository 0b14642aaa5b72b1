use std::time::Duration;

/// An invalid or unknown setting. The text names the setting and its source.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadSettings(String);

impl BadSettings {
    pub(super) fn new(problem: impl Into<String>) -> Self {
        Self(problem.into())
    }
}

/// Rejects durations of 0, with which Belfry could not work. The error names the setting.
pub(super) fn longer_than_zero<const N: usize>(
    settings: [(&str, Duration); N],
) -> Result<(), BadSettings> {
    match settings.iter().find(|(_, duration)| duration.is_zero()) {
        Some((setting, _)) => Err(BadSettings::new(format!("{setting} must be longer than 0s"))),
        None => Ok(()),
    }
}

/// Rejects numbers of 0, with which Belfry could not work. The error names the setting.
pub(super) fn at_least_one<const N: usize>(settings: [(&str, u64); N]) -> Result<(), BadSettings> {
    match settings.iter().find(|(_, number)| *number == 0) {
        Some((setting, _)) => Err(BadSettings::new(format!("{setting} must be at least 1"))),
        None => Ok(()),
    }
}
