use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use belfry_domain::UserId;
use metrics::{counter, describe_counter};
use parking_lot::Mutex;
use tracing::field::display;
use tracing::warn;

use super::log_throttle::LogThrottle;

/// A limit that requests, messages or connections can exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limit {
    /// Connections of this node.
    Connections,
    /// Connections from one address, or requests in flight of one client behind a trusted proxy.
    ConnectionsPerAddress,
    /// Connections from one site (an IPv4 /24 or IPv6 /48 network), or requests in flight of clients behind a
    /// trusted proxy from one site.
    ConnectionsPerSite,
    /// Sessions of one user.
    SessionsPerUser,
    /// Handshakes at this node.
    Handshakes,
    /// Handshakes from one address.
    HandshakesPerAddress,
    /// Handshakes from one site.
    HandshakesPerSite,
    /// Messages of one socket.
    Messages,
    /// Requests of one caller.
    Requests,
    /// Requests of one caller that create notifications.
    Writes,
    /// Work for one user, as in [`UserWork`](super::UserWork).
    Work,
    /// Sessions of polling devices.
    PollingSessions,
    /// Packets queued for a device that does not read.
    SendQueue,
    /// The size of a device's message or POST request.
    Payload,
    /// The size of a REST request's body.
    BodySize,
    /// The duration of a REST request.
    RequestTime,
}

const EXCEEDED: &str = "belfry_limits_hit_total";

/// See [`crate::telemetry::describe_metrics`].
pub(crate) fn describe_metrics() {
    describe_counter!(
        EXCEEDED,
        "Connections, requests, messages and devices that exceeded a limit, by its setting."
    );
}

/// The minimum time between two log lines about the same limit.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Limits the log lines of each limit.
static THROTTLES: Mutex<BTreeMap<Limit, LogThrottle>> = Mutex::new(BTreeMap::new());

impl Limit {
    /// The path of the setting that an operator changes.
    pub const fn setting(self) -> &'static str {
        match self {
            // Every connection may belong to a polling device.
            Self::Connections | Self::PollingSessions => "limits.connections",
            Self::ConnectionsPerAddress | Self::ConnectionsPerSite => {
                "limits.connections_per_address"
            }
            Self::SessionsPerUser => "limits.sessions_per_user",
            Self::Handshakes => "limits.handshakes_per_second",
            Self::HandshakesPerAddress | Self::HandshakesPerSite => "limits.handshakes_per_address",
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

    /// Counts a rejection, and logs it at most once a second per limit, so that clients that exceed a limit do not
    /// fill the log.
    pub fn record_exceeded(self) {
        self.record(None, None);
    }

    /// Like [`record_exceeded`](Self::record_exceeded), but also logs the client's address.
    pub fn record_exceeded_by_address(self, client: IpAddr) {
        self.record(Some(client), None);
    }

    /// Like [`record_exceeded`](Self::record_exceeded), but also logs the user.
    pub fn record_exceeded_by_user(self, user: &UserId) {
        self.record(None, Some(user));
    }

    fn record(self, client: Option<IpAddr>, user: Option<&UserId>) {
        counter!(EXCEEDED, "limit" => self.label()).increment(1);
        let times = THROTTLES
            .lock()
            .entry(self)
            .or_insert_with(|| LogThrottle::every(LOG_INTERVAL))
            .record(Instant::now());
        if let Some(times) = times {
            let (client, user) = (client.map(display), user.map(display));
            warn!(setting = self.setting(), times, client, user, "limit exceeded");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_is_throttled_separately() {
        for limit in [Limit::Connections, Limit::RequestTime] {
            limit.record_exceeded();
            let throttles = THROTTLES.lock();
            assert!(throttles[&limit].has_logged(), "{limit:?}");
        }
    }

    #[test]
    fn label_is_the_setting_without_its_section() {
        assert_eq!(Limit::ConnectionsPerAddress.label(), "connections_per_address");
        assert_eq!(Limit::BodySize.label(), "max_body");
    }
}
