use std::time::Duration;

use belfry_application::use_cases::RetentionPolicy;
use serde::Deserialize;

use super::error::{BadSettings, longer_than_zero};
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
        if self.notifications.is_some_and(|age| age.is_zero()) {
            return Err(BadSettings::new(
                "retention.notifications must be longer than 0s, which would delete every notification; \
                 leave it unset to keep notifications without a maximum age",
            ));
        }
        longer_than_zero([
            ("retention.deleted", self.deleted),
            ("retention.idempotency_keys", self.idempotency_keys),
            ("retention.revocations", self.revocations),
            ("retention.every", self.every),
        ])
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
