use std::time::Duration;

use belfry_application::ports::{CatchUpCause, CatchUpMonitor};
use metrics::{Histogram, Unit, describe_histogram, histogram};

pub(crate) const CATCH_UP: &str = "belfry_catch_up_seconds";

/// One histogram for each cause of a catch-up.
pub struct CatchUpHistograms([(CatchUpCause, Histogram); 3]);

impl CatchUpHistograms {
    /// Registers the histograms. Call it after the recorder is installed.
    pub fn register() -> Self {
        let of = |cause: CatchUpCause| (cause, histogram!(CATCH_UP, "cause" => cause.as_str()));
        Self(CatchUpCause::ALL.map(of))
    }
}

impl CatchUpMonitor for CatchUpHistograms {
    fn record(&self, cause: CatchUpCause, duration: Duration) {
        if let Some((_, histogram)) = self.0.iter().find(|(it, _)| *it == cause) {
            histogram.record(duration);
        }
    }
}

pub(super) fn describe_metrics() {
    describe_histogram!(
        CATCH_UP,
        Unit::Seconds,
        "Time in which a device received the changes that it missed, by cause: connect, request, missed_event. \
         Connects of devices that missed nothing are not counted."
    );
}
