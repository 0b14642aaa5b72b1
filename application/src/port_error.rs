//! The error of every port.

use std::error::Error;

/// Why a port call failed.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The system behind the port is unreachable or overloaded, for every caller. Retry later. It is
    /// unknown whether the call took effect.
    #[error("unavailable: {0}")]
    Unavailable(#[source] Cause),
    /// The call failed, and its content may or may not be the reason. Retry later. It is unknown
    /// whether the call took effect.
    #[error("failed: {0}")]
    Failed(#[source] Cause),
    /// The system behind the port rejected this call and would reject it again.
    #[error("rejected: {0}")]
    Rejected(#[source] Cause),
}

/// The underlying error, for logs.
pub type Cause = Box<dyn Error + Send + Sync>;

impl PortError {
    /// An outage: worth a retry.
    pub fn unavailable(cause: impl Into<Cause>) -> Self {
        Self::Unavailable(cause.into())
    }

    /// A failure that the content of the call may have caused: worth a retry.
    pub fn failed(cause: impl Into<Cause>) -> Self {
        Self::Failed(cause.into())
    }

    /// A failure that a retry would repeat.
    pub fn rejected(cause: impl Into<Cause>) -> Self {
        Self::Rejected(cause.into())
    }

    /// A copy of the error, to return it to several callers. The cause is copied as text, because it
    /// cannot be cloned.
    #[must_use]
    pub fn clone_as_text(&self) -> Self {
        match self {
            Self::Unavailable(cause) => Self::unavailable(cause.to_string()),
            Self::Failed(cause) => Self::failed(cause.to_string()),
            Self::Rejected(cause) => Self::rejected(cause.to_string()),
        }
    }

    /// Whether a retry may succeed.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Failed(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copy_has_the_kind_and_the_text_of_the_error() {
        for (error, text, transient) in [
            (PortError::unavailable("down"), "unavailable: down", true),
            (PortError::failed("statement timeout"), "failed: statement timeout", true),
            (PortError::rejected("too long"), "rejected: too long", false),
        ] {
            assert_eq!(error.is_transient(), transient, "{text}");
            let copy = error.clone_as_text();
            assert_eq!(copy.to_string(), text);
            assert_eq!(copy.is_transient(), transient, "{text}");
        }
    }
}
