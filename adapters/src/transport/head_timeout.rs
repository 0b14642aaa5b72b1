use std::io;
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::request_progress::RequestProgress;

/// Fails a connection's reads when a request head takes too long. The time of the first head starts with the
/// connection, the time of a later head with its first byte.
///
/// hyper's own `header_read_timeout` also limits the idle time between two requests, so it cannot be short: a proxy
/// would send requests into connections that are being closed. It is set to the longer keep-alive time instead.
pub(super) struct HeadTimeout {
    progress: RequestProgress,
    limit: Duration,
    /// The deadline of the head that is being read, and the number of this head in [`RequestProgress::head`].
    deadline: Option<(usize, Pin<Box<Sleep>>)>,
}

impl HeadTimeout {
    /// `started` is the instant at which the time for the first head began.
    pub(super) fn new(progress: RequestProgress, limit: Duration, started: Instant) -> Self {
        let due = || Box::pin(sleep_until(started + limit));
        let deadline = progress.head().map(|first| (first, due()));
        Self { progress, limit, deadline }
    }

    /// Fails with `TimedOut` if the head being read is overdue. Called before each read.
    pub(super) fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let head = self.progress.head();
        self.deadline.take_if(|(read_head, _)| Some(*read_head) != head);
        if let Some((_, deadline)) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }

    /// See [`RequestProgress::record_write`].
    pub(super) fn record_write(&self, is_blocked: bool) {
        self.progress.record_write(is_blocked);
    }

    /// Records that bytes were read, and starts the timer if they are the first ones of a head.
    pub(super) fn bytes_read(&mut self) {
        if self.deadline.is_none() {
            self.deadline = self.progress.head().map(|head| (head, Box::pin(sleep(self.limit))));
        }
    }
}
