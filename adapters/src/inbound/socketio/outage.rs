//! Rejects requests that open a transport while devices cannot be authenticated.

use std::time::Duration;

use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use http::header::{CONNECTION, RETRY_AFTER};
use parking_lot::Mutex;
use tokio::time::Instant;

/// Detects an outage: a connect failed because a dependency is down, and none has succeeded since. The dependencies
/// are the database, and the keys and revocations that tokens are checked with.
///
/// Client libraries reset their backoff when a transport opens. If the server accepted transports during an outage
/// and closed them again, all devices would return every second until its end. A device backs off if its opening
/// request fails.
#[derive(Default)]
pub(super) struct OutageGate(Mutex<Option<Outage>>);

struct Outage {
    began: Instant,
    /// When the next device is admitted as a probe.
    next_probe: Instant,
}

/// How often a device is admitted during an outage, to detect its end. More often than once a second, because not
/// every client that opens a transport also connects.
const PROBE_EVERY: Duration = Duration::from_millis(200);
const MIN_RETRY_AFTER: Duration = Duration::from_secs(1);
const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);

/// An opening request is rejected during an outage. The device should retry after `retry_after`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unavailable {
    retry_after: Duration,
}

impl OutageGate {
    /// Rejects a device during an outage, unless the next probe is due.
    pub(super) fn check(&self) -> Result<(), Unavailable> {
        let mut outage = self.0.lock();
        let Some(outage) = &mut *outage else { return Ok(()) };
        let now = Instant::now();
        if outage.next_probe <= now {
            outage.next_probe = now + PROBE_EVERY;
            return Ok(());
        }
        // The longer the outage, the longer the delay.
        let lasted = now.duration_since(outage.began);
        Err(Unavailable { retry_after: lasted.clamp(MIN_RETRY_AFTER, MAX_RETRY_AFTER) })
    }

    /// Records that a connect failed because a dependency is down.
    pub(super) fn connect_failed(&self) {
        let now = Instant::now();
        let begin = || Outage { began: now, next_probe: now + PROBE_EVERY };
        self.0.lock().get_or_insert_with(begin);
    }

    /// Records that a device connected, which needs all dependencies. This ends the outage.
    pub(super) fn connect_succeeded(&self) {
        *self.0.lock() = None;
    }
}

impl Unavailable {
    pub(super) const CODE: &str = "unavailable";
}

impl From<Unavailable> for Response {
    fn from(Unavailable { retry_after }: Unavailable) -> Self {
        let retry_after = [(RETRY_AFTER, retry_after.as_secs())];
        let body =
            r#"{"code":"unavailable","message":"devices cannot be authenticated at the moment"}"#;
        (StatusCode::SERVICE_UNAVAILABLE, [(CONNECTION, "close")], retry_after, body)
            .into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retry_after(gate: &OutageGate) -> Option<u64> {
        gate.check().err().map(|unavailable| unavailable.retry_after.as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn outage_admits_only_probes_and_delays_other_devices_ever_longer() {
        let gate = OutageGate::default();
        assert_eq!(retry_after(&gate), None);
        gate.connect_failed();
        assert_eq!(retry_after(&gate), Some(1));
        for (seconds, expected) in [(5, 5), (10, 15), (60, 30)] {
            tokio::time::advance(Duration::from_secs(seconds)).await;
            assert_eq!(retry_after(&gate), None, "one device is admitted as a probe");
            gate.connect_failed();
            assert_eq!(retry_after(&gate), Some(expected));
        }
        gate.connect_succeeded();
        assert_eq!([(); 3].map(|()| retry_after(&gate)), [None; 3]);
    }
}
