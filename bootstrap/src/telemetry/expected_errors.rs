use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Drops the errors that lapin logs when a queue or exchange does not exist, exists with other properties,
/// or may not be declared or used.
///
/// AMQP has no other way to find that out than to try, and the broker closes the channel as its answer.
/// Belfry expects that: it looks for the node's queue before it declares it, to know whether events were
/// lost, and it uses what exists unchanged. An unexpected refusal is not hidden, as Belfry logs every failed
/// operation itself.
pub(super) struct ExpectedErrors;

impl<S: Subscriber> Layer<S> for ExpectedErrors {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        !is_answer(event)
    }
}

/// Whether lapin logs the broker's answer to an operation.
fn is_answer(event: &Event<'_>) -> bool {
    let metadata = event.metadata();
    if *metadata.level() != Level::ERROR || metadata.target() != "lapin::channel" {
        return false;
    }
    let mut error = ErrorField::default();
    event.record(&mut error);
    ANSWERS.iter().any(|answer| error.0.contains(answer))
}

const ANSWERS: [&str; 4] = [
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
    fn only_lapins_errors_about_answers_are_dropped() {
        let missing_queue = "NOT_FOUND - no queue 'belfry.node.a' in vhost '/'";
        for answer in [
            missing_queue,
            "NOT_FOUND - no exchange 'belfry.events' in vhost '/'",
            "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'belfry.events'",
            "ACCESS_REFUSED - access to queue 'belfry.ingest' in vhost '/' refused for user 'svc'",
        ] {
            let log = || error!(target: "lapin::channel", error = ?answer, "Channel closed");
            assert_eq!(count(log), 0, "{answer}");
        }
        let timeout = "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out";
        let other = || error!(target: "lapin::channel", error = ?timeout, "Channel closed");
        assert_eq!(count(other), 1);
        assert_eq!(count(|| error!(error = ?missing_queue, "of another library")), 1);
    }
}
