use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Drops the errors that lapin logs when a queue or exchange does not exist, exists with other properties,
/// or may not be declared or used.
///
/// In AMQP, the only way to find this out is to try, and the broker then closes the channel. Belfry expects
/// this: before it declares the node's queue, it checks whether the queue exists, to know whether events
/// were lost; and it uses existing queues and exchanges unchanged. Unexpected refusals still appear in the
/// log: Belfry logs every failed operation itself.
pub(super) struct ExpectedErrors;

impl<S: Subscriber> Layer<S> for ExpectedErrors {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        !is_expected(event)
    }
}

/// Whether lapin logs that the broker closed a channel with an expected error.
fn is_expected(event: &Event<'_>) -> bool {
    let metadata = event.metadata();
    if *metadata.level() != Level::ERROR || metadata.target() != "lapin::channel" {
        return false;
    }
    let mut error = ErrorField::default();
    event.record(&mut error);
    EXPECTED.iter().any(|text| error.0.contains(text))
}

/// Parts of the texts of expected errors.
const EXPECTED: [&str; 4] = [
    "NOT_FOUND - no queue '",
    "NOT_FOUND - no exchange '",
    "PRECONDITION_FAILED - inequivalent arg '",
    "ACCESS_REFUSED - ",
];

/// The text of an event's field `error`.
#[derive(Default)]
struct ErrorField(String);

impl Visit for ErrorField {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "error" {
            let _ = write!(self.0, "{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tracing::error;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    struct Counter(Arc<AtomicUsize>);

    impl<S: Subscriber> Layer<S> for Counter {
        fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn count(log: impl FnOnce()) -> usize {
        let count = Arc::<AtomicUsize>::default();
        let layers =
            tracing_subscriber::registry().with(ExpectedErrors).with(Counter(count.clone()));
        tracing::subscriber::with_default(layers, log);
        count.load(Ordering::SeqCst)
    }

    #[test]
    fn only_expected_errors_of_lapin_are_dropped() {
        let missing_queue = "NOT_FOUND - no queue 'belfry.node.a' in vhost '/'";
        for expected in [
            missing_queue,
            "NOT_FOUND - no exchange 'belfry.events' in vhost '/'",
            "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'belfry.events'",
            "ACCESS_REFUSED - access to queue 'belfry.ingest' in vhost '/' refused for user 'svc'",
        ] {
            let log = || error!(target: "lapin::channel", error = ?expected, "Channel closed");
            assert_eq!(count(log), 0, "{expected}");
        }
        let timeout = "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out";
        let other = || error!(target: "lapin::channel", error = ?timeout, "Channel closed");
        assert_eq!(count(other), 1);
        assert_eq!(count(|| error!(error = ?missing_queue, "of another library")), 1);
    }
}
