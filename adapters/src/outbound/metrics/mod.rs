//! Ports that measure: decorators of other adapters, and a monitor.

mod catch_up_monitor;
mod inbox_repository;
mod outbox;

use std::time::Instant;

use metrics::{Histogram, Unit, describe_histogram, histogram};

pub(crate) use catch_up_monitor::CATCH_UP;
pub use catch_up_monitor::CatchUpHistograms;
pub use inbox_repository::MeteredInboxes;
pub use outbox::MeteredOutbox;

pub(crate) const STORE_OPERATION: &str = "belfry_store_operation_seconds";

/// See [`crate::telemetry::describe_metrics`].
pub(crate) fn describe_metrics() {
    describe_histogram!(
        STORE_OPERATION,
        Unit::Seconds,
        "Duration of an operation of the store, failed ones included: waiting for a connection, for a group commit \
         and for the database."
    );
    catch_up_monitor::describe_metrics();
}

/// The histogram of one operation of the store, registered once.
struct Operation(Histogram);

impl Operation {
    fn new(name: &'static str) -> Self {
        Self(histogram!(STORE_OPERATION, "operation" => name))
    }

    async fn measure<T>(&self, operation: impl Future<Output = T>) -> T {
        let started = Instant::now();
        let result = operation.await;
        self.0.record(started.elapsed());
        result
    }
}
