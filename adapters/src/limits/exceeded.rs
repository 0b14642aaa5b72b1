use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use metrics::counter;
use parking_lot::Mutex;
use tracing::warn;

/// The limits because of which something is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limit {
    /// Connections of this node.
    Connections,
    /// Connections from one address, or requests in flight of one client behind a trusted proxy.
    ConnectionsPerAddress,
    /// Sessions of one user.
    SessionsPerUser,
    /// Handshakes at this node.
    Handshakes,
    /// Handshakes from one address.
    HandshakesPerAddress,
    /// Messages of one socket.
    Messages,
    /// Requests of one caller.
    Requests,
    /// Requests of one service that writes.
    Writes,
    /// Work for one user.
    Work,
    /// Devices that poll.
    PollingSessions,
    /// What is queued for a device that does not read.
    SendQueue,
    /// The size of what a device sends at once.
    Payload,
    /// The size of a request's body.
    BodySize,
    /// The time that a request takes.
    RequestTime,
}

/// The shortest time between two log lines about the same limit.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

static THROTTLES: Mutex<BTreeMap<Limit, LogThrottle>> = Mutex::new(BTreeMap::new());

impl Limit {
    /// The path of the setting that an operator changes.
    pub const fn setting(self) -> &'static str {
        match self {
            // Every connection may be that of a device that polls.
            Self::Connections | Self::PollingSessions => "limits.connections",
            Self::ConnectionsPerAddress => "limits.connections_per_address",
            Self::SessionsPerUser => "limits.sessions_per_user",
            Self::Handshakes => "limits.handshakes_per_second",
            Self::HandshakesPerAddress => "limits.handshakes_per_address",
            Self::Messages => "limits.messages_per_second",
            Self::Requests => "limits.requests_per_second",
            Self::Writes => "limits.writes_per_second",
            Self::Work => "limits.work_per_user",
            Self::SendQueue => "socket.queue_bytes",
            Self::Payload => "socket.max_payload",
            Self::BodySize => "http.max_body",
            Self::RequestTime => "http.request_timeout",
        }
    }

    /// The value of the label `limit` in metrics: the setting without its section.
    pub(crate) fn label(self) -> &'static str {
        let setting = self.setting();
        setting.rsplit_once('.').map_or(setting, |(_, name)| name)
    }

    /// Counts a rejection, and logs it at most once a second per limit: clients that exceed a limit
    /// would otherwise fill the log.
    pub fn record_exceeded(self) {
        self.record(None);
    }

    /// The same for limits of which the client's address tells most.
    pub fn record_exceeded_by(self, client: IpAddr) {
        self.record(Some(client));
    }

    fn record(self, client: Option<IpAddr>) {
        counter!("belfry_limits_hit_total", "limit" => self.label()).increment(1);
        let times = THROTTLES.lock().entry(self).or_default().record(Instant::now());
        if let Some(times) = times {
            let client = client.map(tracing::field::display);
            warn!(setting = self.setting(), times, client, "limit exceeded");
        }
    }
}

/// When a limit was last logged, and how often it has been exceeded since.
#[derive(Debug, Default)]
struct LogThrottle {
    logged: Option<Instant>,
    since: u64,
}

impl LogThrottle {
    /// How often the limit was exceeded since the last log line, this time included; `None` while
    /// another line would be too early.
    fn record(&mut self, now: Instant) -> Option<u64> {
        self.since += 1;
        if self.logged.is_some_and(|then| now.duration_since(then) < LOG_INTERVAL) {
            return None;
        }
        self.logged = Some(now);
        Some(std::mem::take(&mut self.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceeded_limit_is_logged_once_a_second_with_its_count() {
        let start = Instant::now();
        let mut throttle = LogThrottle::default();
        let mut record = |millis| throttle.record(start + Duration::from_millis(millis));
        assert_eq!([0, 1, 999].map(&mut record), [Some(1), None, None]);
        assert_eq!([1_000, 1_001, 5_000].map(&mut record), [Some(3), None, Some(2)]);
    }

    #[test]
    fn every_limit_is_throttled_by_itself() {
        for limit in [Limit::Connections, Limit::RequestTime] {
            limit.record_exceeded();
            let throttles = THROTTLES.lock();
            assert!(throttles[&limit].logged.is_some(), "{limit:?}");
        }
    }

    #[test]
    fn metrics_name_the_setting_without_its_section() {
        assert_eq!(Limit::ConnectionsPerAddress.label(), "connections_per_address");
        assert_eq!(Limit::BodySize.label(), "max_body");
    }
}
