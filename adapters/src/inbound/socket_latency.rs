use std::sync::Arc;

use belfry_application::ports::Clock;
use belfry_domain::Timestamp;
use metrics::{Histogram, Unit, describe_histogram, histogram};

pub(crate) const COMMIT_TO_SOCKET: &str = "belfry_commit_to_socket_seconds";
pub(crate) const PUBLISH_TO_SOCKET: &str = "belfry_publish_to_socket_seconds";

/// Measures how long events take to reach the sockets of devices. It registers its histogram only once, because it
/// records a value for every event.
pub(super) struct SocketLatency {
    histogram: Histogram,
    clock: Arc<dyn Clock>,
}

impl SocketLatency {
    /// Measures from the commit of a change, for events of store mode.
    pub(super) fn since_commit(clock: Arc<dyn Clock>) -> Self {
        Self { histogram: histogram!(COMMIT_TO_SOCKET), clock }
    }

    /// Measures from the publication of a message, for events of forward mode.
    pub(super) fn since_publication(clock: Arc<dyn Clock>) -> Self {
        Self { histogram: histogram!(PUBLISH_TO_SOCKET), clock }
    }

    /// Records the time since `start`. Call it right after an event was delivered to `devices`, the number of devices
    /// on this node. Nothing is recorded if that is zero or the start is unknown. The start comes from another
    /// machine's clock, so it may be in the future; then the time counts as zero.
    pub(super) fn record(&self, start: Option<Timestamp>, devices: usize) {
        if let Some(start) = start
            && devices > 0
        {
            self.histogram.record(self.clock.now().since(start));
        }
    }
}

/// See [`crate::telemetry::describe_metrics`].
pub(crate) fn describe_metrics() {
    describe_histogram!(
        COMMIT_TO_SOCKET,
        Unit::Seconds,
        "Time from the write of a change, by the database's clock, until its event was written to the sockets or \
         send queues of the user's devices on this node. Negative differences of the clocks count as 0."
    );
    describe_histogram!(
        PUBLISH_TO_SOCKET,
        Unit::Seconds,
        "Forward mode: time from the publication of a message (header timestamp_in_ms, else its receipt by the \
         first node) until it was written to the sockets or send queues of the user's devices on this node. \
         Negative differences of the clocks count as 0."
    );
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use belfry_application::testing::{ManualClock, at};
    use metrics::HistogramFn;
    use parking_lot::Mutex;

    use super::*;

    #[derive(Default)]
    struct Recorded(Mutex<Vec<f64>>);

    impl HistogramFn for Recorded {
        fn record(&self, value: f64) {
            self.0.lock().push(value);
        }
    }

    #[test]
    fn latency_is_recorded_in_seconds_if_a_device_received_the_event() {
        let recorded = Arc::new(Recorded::default());
        let clock = Arc::new(ManualClock::at(5_000));
        let latency = SocketLatency { histogram: Histogram::from_arc(recorded.clone()), clock };
        latency.record(Some(at(4_750)), 2);
        latency.record(Some(at(9_000)), 1);
        latency.record(Some(at(4_000)), 0);
        latency.record(None, 1);
        assert_eq!(*recorded.0.lock(), [0.25, 0.0]);
    }
}
