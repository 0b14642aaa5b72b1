//! A bound on how long the head of a request may take.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// How far a connection is with its requests: even while a head is awaited or read, odd while its request
/// is answered. A count and no flag, as a whole request may pass between two looks at it.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress(Arc<AtomicUsize>);

impl Progress {
    /// A head was read, or its request was answered.
    pub(super) fn step(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }

    /// Which head is awaited or read; `None` while a request is answered.
    fn head(&self) -> Option<usize> {
        Some(self.0.load(Ordering::Acquire)).filter(|steps| steps.is_multiple_of(2))
    }
}

/// A connection that fails when a request's head takes too long: from the beginning of the connection
/// for the first one, from its first byte for others.
///
/// hyper has a bound of its own, which also ends connections between two requests. That one is for
/// those, and much longer: a proxy that keeps its connections would send into closed ones otherwise.
pub(super) struct HeadTimeout<S> {
    stream: S,
    progress: Progress,
    limit: Duration,
    /// Here while a head is being read, and which.
    deadline: Option<(usize, Pin<Box<Sleep>>)>,
}

impl<S> HeadTimeout<S> {
    /// The time for the first head began then.
    pub(super) fn new(stream: S, progress: Progress, limit: Duration, begun: Instant) -> Self {
        let due = || Box::pin(sleep_until(begun + limit));
        let deadline = progress.head().map(|first| (first, due()));
        Self { stream, progress, limit, deadline }
    }

    /// The connection, which is no longer one of HTTP.
    pub(super) fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HeadTimeout<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let head = self.progress.head();
        self.deadline.take_if(|(its, _)| Some(*its) != head);
        if let Some((_, deadline)) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before && self.deadline.is_none() {
            self.deadline = head.map(|its| (its, Box::pin(sleep(self.limit))));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HeadTimeout<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
