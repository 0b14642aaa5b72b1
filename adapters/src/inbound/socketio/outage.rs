//! Rejects devices before they open a transport while none can be authenticated.

use std::time::Duration;

use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use http::header::{CONNECTION, RETRY_AFTER};
use parking_lot::Mutex;
use tokio::time::Instant;

/// Knows whether the last connect failed because something that it needs is down: the database, or the keys or
/// revocations that tokens are checked with.
///
/// Client libraries reset their backoff once a transport is open. A device whose transport is closed again
/// because it cannot be authenticated would therefore return every second for as long as the outage lasts, and
/// so would all others. One whose opening request fails backs off.
#[derive(Default)]
pub(super) struct OutageGate(Mutex<Option<Outage>>);

struct Outage {
    began: Instant,
    /// When the next device may try whether the outage is over.
    next_probe: Instant,
}

/// How often a device is admitted during an outage, to find out whether it is over. More often than once a second,
/// as not every client that opens a transport goes on to connect.
const PROBE_EVERY: Duration = Duration::from_millis(200);
const MIN_RETRY_AFTER: Duration = Duration::from_secs(1);
const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);

/// A device is to come back later.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unavailable {
    retry_after: Duration,
}

impl OutageGate {
    /// Whether a device may open a transport now.
    pub(super) fn check(&self) -> Result<(), Unavailable> {
        let mut outage = self.0.lock();
        let Some(outage) = &mut *outage else { return Ok(()) };
        let now = Instant::now();
        if outage.next_probe <= now {
            outage.next_probe = now + PROBE_EVERY;
            return Ok(());
        }
        // As long again as the outage has lasted.
        let lasted = now.duration_since(outage.began);
        Err(Unavailable { retry_after: lasted.clamp(MIN_RETRY_AFTER, MAX_RETRY_AFTER) })
    }

    /// A connect failed because something is down.
    pub(super) fn failed(&self) {
        let now = Instant::now();
        let begin = || Outage { began: now, next_probe: now + PROBE_EVERY };
        self.0.lock().get_or_insert_with(begin);
    }

    /// A device was connected, for which everything is needed.
    pub(super) fn succeeded(&self) {
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
    async fn during_an_outage_few_devices_are_admitted_and_others_wait_ever_longer() {
        let gate = OutageGate::default();
        assert_eq!(retry_after(&gate), None);
        gate.failed();
        assert_eq!(retry_after(&gate), Some(1));
        for (seconds, expected) in [(5, 5), (10, 15), (60, 30)] {
            tokio::time::advance(Duration::from_secs(seconds)).await;
            assert_eq!(retry_after(&gate), None, "the probe");
            gate.failed();
            assert_eq!(retry_after(&gate), Some(expected));
        }
        gate.succeeded();
        assert_eq!([(); 3].map(|()| retry_after(&gate)), [None; 3]);
    }
}
