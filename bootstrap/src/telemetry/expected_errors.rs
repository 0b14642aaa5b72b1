use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Drops the error that lapin logs when a queue does not exist.
///
/// AMQP has no other way to find out whether a queue exists than to declare it passively, and the broker
/// closes the channel if it does not. Belfry expects that: it looks for the node's queue before it
/// declares it, to know whether events were lost. An unexpected missing queue is not hidden, as Belfry
/// logs every failed operation itself.
pub(super) struct ExpectedErrors;

impl<S: Subscriber> Layer<S> for ExpectedErrors {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        !is_missing_queue(event)
    }
}

fn is_missing_queue(event: &Event<'_>) -> bool {
    let metadata = event.metadata();
    if *metadata.level() != Level::ERROR || metadata.target() != "lapin::channel" {
        return false;
    }
    let mut error = ErrorField::default();
    event.record(&mut error);
    error.0.contains("NOT_FOUND - no queue '")
}

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
    fn only_lapins_error_about_a_missing_queue_is_dropped() {
        let missing_queue = "NOT_FOUND - no queue 'belfry.node.a' in vhost '/'";
        let missing_exchange = "NOT_FOUND - no exchange 'belfry.events' in vhost '/'";
        let dropped = || error!(target: "lapin::channel", error = ?missing_queue, "Channel closed");
        assert_eq!(count(dropped), 0);
        let other =
            || error!(target: "lapin::channel", error = ?missing_exchange, "Channel closed");
        assert_eq!(count(other), 1);
        assert_eq!(count(|| error!(error = ?missing_queue, "of another library")), 1);
    }
}
