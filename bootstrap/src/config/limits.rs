use belfry_adapters::inbound::rest::RequestLimits;
use belfry_adapters::limits::{PerSecond, UserWork};
use belfry_adapters::transport::ConnectionLimits;
use belfry_application::session::{ExcessPolicy, SessionLimit};
use serde::Deserialize;

use super::values;

/// `limits.*`. In each number 0 means no limit.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents the settings")]
pub struct Limits {
    #[serde(deserialize_with = "values::or_text")]
    pub connections: usize,
    /// Not a setting: whether a layer above the defaults sets `limits.connections`.
    #[serde(skip)]
    pub connections_is_explicit: bool,
    #[serde(deserialize_with = "values::or_text")]
    pub connections_per_address: usize,
    #[serde(deserialize_with = "values::or_text")]
    pub sessions_per_user: usize,
    pub over: OverLimit,
    #[serde(deserialize_with = "values::or_text")]
    pub handshakes_per_second: u32,
    #[serde(deserialize_with = "values::or_text")]
    pub handshakes_per_address: u32,
    #[serde(deserialize_with = "values::or_text")]
    pub messages_per_second: u32,
    #[serde(deserialize_with = "values::or_text")]
    pub requests_per_second: u32,
    #[serde(deserialize_with = "values::or_text")]
    pub writes_per_second: u32,
    #[serde(deserialize_with = "values::or_text")]
    pub work_per_user: u32,
}

/// The session that ends when a user exceeds `limits.sessions_per_user`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OverLimit {
    /// The oldest session is evicted.
    Oldest,
    /// The new session is rejected.
    Newest,
}

impl Limits {
    /// Limits of the public listener.
    pub fn connection_limits(&self) -> ConnectionLimits {
        ConnectionLimits {
            connections: unless_zero(self.connections),
            per_address: unless_zero(self.connections_per_address),
        }
    }

    /// `None` for no limit.
    pub fn session_limit(&self) -> Option<SessionLimit> {
        let on_excess = match self.over {
            OverLimit::Oldest => ExcessPolicy::EvictOldest,
            OverLimit::Newest => ExcessPolicy::RejectNewest,
        };
        (self.sessions_per_user > 0)
            .then_some(SessionLimit { per_user: self.sessions_per_user, on_excess })
    }

    /// The limits of one user's work, which REST and Socket.IO share.
    pub fn user_work(&self, database_connections: u32) -> UserWork {
        // The maximum of concurrent store operations. Most take about a millisecond, so two at a time are enough
        // to use the whole budget of a user. With more, one user would compete with the others for the
        // database's processors. One user never gets more than half of the connections.
        const MAX_CONCURRENT: u32 = 2;
        let max_concurrent = (database_connections / 2).clamp(1, MAX_CONCURRENT);
        UserWork::new(PerSecond::new(self.work_per_user), max_concurrent as usize)
    }

    /// Limits of REST requests.
    pub fn request_limits(&self, user_work: UserWork) -> RequestLimits {
        let requests = PerSecond::new(self.requests_per_second);
        RequestLimits::new(requests, PerSecond::new(self.writes_per_second), user_work)
    }
}

/// The limit, or `usize::MAX` for 0.
pub(super) const fn unless_zero(limit: usize) -> usize {
    if limit == 0 { usize::MAX } else { limit }
}
