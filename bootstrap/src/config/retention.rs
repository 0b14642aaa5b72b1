use std::time::Duration;

use belfry_application::use_cases::RetentionPolicy;
use serde::Deserialize;

use super::error::BadSettings;
use super::values;

/// `retention.*`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents the settings")]
pub struct Retention {
    #[serde(default, deserialize_with = "values::optional_duration")]
    pub notifications: Option<Duration>,
    #[serde(deserialize_with = "values::duration")]
    pub deleted: Duration,
    #[serde(deserialize_with = "values::duration")]
    pub idempotency_keys: Duration,
    #[serde(deserialize_with = "values::duration")]
    pub revocations: Duration,
    #[serde(deserialize_with = "values::duration")]
    pub every: Duration,
}

impl Retention {
    pub(super) fn check(&self) -> Result<(), BadSettings> {
        if self.every.is_zero() {
            return Err(BadSettings::new("retention.every must be longer than 0s"));
        }
        Ok(())
    }

    /// The rules of the retention cleanup.
    pub fn rules(&self) -> RetentionPolicy {
        RetentionPolicy {
            notifications: self.notifications,
            deleted: self.deleted,
            requests: self.idempotency_keys,
            revocations: self.revocations,
            interval: self.every,
            ..RetentionPolicy::default()
        }
    }
}
