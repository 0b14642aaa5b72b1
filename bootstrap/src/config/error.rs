/// An invalid or unknown setting. The text names the setting and its source.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadSettings(String);

impl BadSettings {
    pub(super) fn new(problem: impl Into<String>) -> Self {
        Self(problem.into())
    }
}
