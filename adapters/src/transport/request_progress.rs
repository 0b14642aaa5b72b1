use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The state of a connection's requests. The stream, the HTTP service and the connection's task share it.
#[derive(Debug, Clone, Default)]
pub(super) struct RequestProgress(Arc<Progress>);

#[derive(Debug, Default)]
struct Progress {
    /// Even while a request head is awaited or read, odd while the request is in flight. It is a counter and not a
    /// flag, because a whole request may pass between two reads of it.
    steps: AtomicUsize,
    is_write_blocked: AtomicBool,
}

impl RequestProgress {
    /// Records that a request head was read, or that the response to it was sent.
    pub(super) fn advance(&self) {
        self.0.steps.fetch_add(1, Ordering::AcqRel);
    }

    /// Identifies the head that is awaited or read; `None` while a request is in flight.
    pub(super) fn head(&self) -> Option<usize> {
        Some(self.0.steps.load(Ordering::Acquire)).filter(|steps| steps.is_multiple_of(2))
    }

    /// Records whether the last write was blocked, because the client reads too slowly.
    pub(super) fn record_write(&self, is_blocked: bool) {
        self.0.is_write_blocked.store(is_blocked, Ordering::Release);
    }

    /// Whether the client has not read enough of earlier responses to write all of them.
    pub(super) fn is_write_blocked(&self) -> bool {
        self.0.is_write_blocked.load(Ordering::Acquire)
    }
}
