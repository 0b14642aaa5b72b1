use std::io;
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::request_progress::RequestProgress;

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

    /// The result of a write.
    pub(super) fn record_write(&self, is_blocked: bool) {
        self.progress.record_write(is_blocked);
    }

    /// Bytes were read: starts the timer if they begin a head.
    pub(super) fn bytes_read(&mut self) {
        if self.deadline.is_none() {
            self.deadline = self.progress.head().map(|its| (its, Box::pin(sleep(self.limit))));
        }
    }
}
