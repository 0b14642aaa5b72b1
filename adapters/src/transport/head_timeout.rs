use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Context;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// Counts the requests of a connection: even while a request head is awaited or read, odd while the request is in
/// flight. A counter instead of a flag, because a whole request may pass between two reads.
#[derive(Debug, Clone, Default)]
pub(super) struct RequestProgress(Arc<AtomicUsize>);

impl RequestProgress {
    /// A head was read, or its response was sent.
    pub(super) fn advance(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }

    /// Identifies the head that is awaited or read; `None` while a request is in flight.
    fn head(&self) -> Option<usize> {
        Some(self.0.load(Ordering::Acquire)).filter(|steps| steps.is_multiple_of(2))
    }
}

/// Fails a connection's reads when a request head takes too long: measured from the start of the connection for
/// the first head, from its first byte for later ones.
///
/// hyper's own `header_read_timeout` also limits the idle time between two requests. It is used for that and is
/// much longer, because a proxy would otherwise send requests into connections that are being closed.
pub(super) struct HeadTimeout {
    progress: RequestProgress,
    limit: Duration,
    /// Set while a head is being read, with the identity of that head.
    deadline: Option<(usize, Pin<Box<Sleep>>)>,
}

impl HeadTimeout {
    /// `started` is when the time for the first head began.
    pub(super) fn new(progress: RequestProgress, limit: Duration, started: Instant) -> Self {
        let due = || Box::pin(sleep_until(started + limit));
        let deadline = progress.head().map(|first| (first, due()));
        Self { progress, limit, deadline }
    }

    /// Fails with `TimedOut` if the head being read is overdue. Called before each read.
    pub(super) fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let head = self.progress.head();
        self.deadline.take_if(|(its, _)| Some(*its) != head);
        if let Some((_, deadline)) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }

    /// Bytes were read: starts the timer if they begin a head.
    pub(super) fn bytes_read(&mut self) {
        if self.deadline.is_none() {
            self.deadline = self.progress.head().map(|its| (its, Box::pin(sleep(self.limit))));
        }
    }
}
