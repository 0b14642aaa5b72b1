//! The two halves of an open WebSocket: [`FrameWriter`], shared by all tasks that send, and [`WebSocketReader`],
//! owned by the connection's task.
//!
//! The sending task writes directly to the kernel: no queue, no wake-up of another task, one system call for
//! all frames of a delivery. Bytes that the kernel does not accept are queued within limits. A separate task
//! writes them as the peer reads.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf as _, Bytes};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite as _, ReadBuf};

use super::frame_reader::{Frame, FrameReader, ReadError};
use super::stream::Stream;

/// How much may be queued for a peer that reads too slowly.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SendLimits {
    pub(crate) frames: usize,
    pub(crate) bytes: usize,
}

impl SendLimits {
    pub(crate) const UNLIMITED: Self = Self { frames: usize::MAX, bytes: usize::MAX };

    /// Whether `more` may be queued. An empty queue accepts a message of any size, because a message above the
    /// byte limit could otherwise never be sent.
    pub(crate) const fn allow(self, queued: Queued, more: Queued) -> bool {
        let frames = queued.frames.saturating_add(more.frames);
        let bytes = queued.bytes.saturating_add(more.bytes);
        frames <= self.frames && (bytes <= self.bytes || queued.bytes == 0)
    }
}

/// A number of frames and their size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Queued {
    pub(crate) frames: usize,
    pub(crate) bytes: usize,
}

impl Queued {
    pub(crate) fn of<'a>(frames: impl Iterator<Item = &'a Bytes>) -> Self {
        frames.fold(Self { frames: 0, bytes: 0 }, |sum, frame| Self {
            frames: sum.frames + 1,
            bytes: sum.bytes + frame.len(),
        })
    }
}

/// Why frames were neither written nor queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnqueueError {
    /// The peer reads too slowly.
    #[error("the send queue is full")]
    Full,
    /// The connection is closed or being closed.
    #[error("the connection is closed")]
    Closed,
}

/// The writing half. A clone writes to the same connection.
#[derive(Clone)]
pub(crate) struct FrameWriter(Arc<SharedStream>);

/// The reading half. Dropping it closes the connection.
pub(crate) struct WebSocketReader {
    shared: Arc<SharedStream>,
    frames: FrameReader,
}

struct SharedStream(Mutex<State>);

struct State {
    /// `None` once the reading half has been dropped.
    stream: Option<Stream>,
    /// Nothing can be written any more: a write failed, or the reading half was dropped.
    is_closed: bool,
    /// Frames, or the ends of frames, that the kernel did not accept.
    queue: VecDeque<Bytes>,
    queued_bytes: usize,
    /// Whether a task is writing the queue.
    is_draining: bool,
    /// Wakes the task that writes the queue, while it waits for the peer.
    drain_waker: Option<Waker>,
    /// Wakes the task that waits until the queue is empty.
    drained_waker: Option<Waker>,
}

/// Splits an open WebSocket. A message from the peer may have at most `max_message` bytes.
pub(super) fn split(stream: Stream, max_message: usize) -> (FrameWriter, WebSocketReader) {
    let shared = Arc::new(SharedStream(Mutex::new(State {
        stream: Some(stream),
        is_closed: false,
        queue: VecDeque::new(),
        queued_bytes: 0,
        is_draining: false,
        drain_waker: None,
        drained_waker: None,
    })));
    let reader = WebSocketReader { shared: shared.clone(), frames: FrameReader::new(max_message) };
    (FrameWriter(shared), reader)
}

impl FrameWriter {
    /// Writes whole frames in order: all of them or none. Bytes that the kernel does not accept are queued. The
    /// limits apply only if earlier bytes are still queued.
    pub(crate) fn write<'a>(
        &self,
        frames: impl Iterator<Item = &'a Bytes> + Clone,
        limits: SendLimits,
    ) -> Result<(), EnqueueError> {
        let mut state = self.0.0.lock();
        if state.is_closed {
            return Err(EnqueueError::Closed);
        }
        if state.is_draining {
            let queued = Queued { frames: state.queue.len(), bytes: state.queued_bytes };
            if !limits.allow(queued, Queued::of(frames.clone())) {
                return Err(EnqueueError::Full);
            }
            state.enqueue(0, frames);
            return Ok(());
        }
        let written = state.write_now(frames.clone())?;
        state.enqueue(written, frames);
        if state.needs_drain() {
            state.is_draining = true;
            tokio::spawn(SharedStream::drain(Arc::downgrade(&self.0)));
        }
        Ok(())
    }

    /// How many bytes the kernel has not accepted yet.
    pub(crate) fn queued_bytes(&self) -> usize {
        let state = self.0.0.lock();
        // With TLS a record may be buffered although the queue is empty. It counts as one byte.
        state.queued_bytes.max(usize::from(state.is_draining))
    }

    /// Ready once the kernel has accepted everything, or the connection is closed.
    pub(crate) fn poll_drained(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.0.0.lock();
        if !state.is_draining {
            return Poll::Ready(());
        }
        state.drained_waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl WebSocketReader {
    /// The next frame. Cancel safe.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame, ReadError>> {
        self.frames.poll_next(cx, &mut &*self.shared)
    }

    /// See [`FrameReader::raise_limit`].
    pub(crate) fn raise_limit(&mut self, limit: usize) -> bool {
        self.frames.raise_limit(limit)
    }

    /// Shuts down the writing direction: the peer sees the end of the stream after all written data.
    pub(crate) fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.shared.0.lock().stream {
            Some(stream) => Pin::new(stream).poll_shutdown(cx).map(drop),
            None => Poll::Ready(()),
        }
    }

    /// Reads and discards data that the peer still sends, and subtracts its size from `budget`. Ready at the end of
    /// the stream, or when the budget is used up.
    ///
    /// If a connection is closed with unread bytes, the kernel resets it, and the peer loses data that it has not
    /// read yet, such as a close frame.
    pub(crate) fn poll_discard(&self, cx: &mut Context<'_>, budget: &mut usize) -> Poll<()> {
        let mut chunk = [std::mem::MaybeUninit::uninit(); 4_096];
        while *budget > 0 {
            let mut read = ReadBuf::uninit(&mut chunk);
            match ready!(Pin::new(&mut &*self.shared).poll_read(cx, &mut read)) {
                Ok(()) if !read.filled().is_empty() => {
                    *budget = budget.saturating_sub(read.filled().len());
                }
                _ => break,
            }
        }
        Poll::Ready(())
    }
}

impl Drop for WebSocketReader {
    fn drop(&mut self) {
        let mut state = self.shared.0.lock();
        state.stream = None;
        state.close();
    }
}

impl AsyncRead for &SharedStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.0.lock().stream {
            Some(stream) => Pin::new(stream).poll_read(cx, buf),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl SharedStream {
    /// Writes the queue while the peer reads. The weak reference does not keep the connection open.
    async fn drain(shared: Weak<Self>) {
        std::future::poll_fn(move |cx| {
            let Some(shared) = shared.upgrade() else { return Poll::Ready(()) };
            shared.0.lock().poll_drain(cx)
        })
        .await;
    }
}

impl State {
    /// Writes as much as the kernel accepts without waiting; returns the number of bytes.
    fn write_now<'a>(
        &mut self,
        frames: impl Iterator<Item = &'a Bytes>,
    ) -> Result<usize, EnqueueError> {
        let written = match &mut self.stream {
            Some(stream) => stream.write_now(frames),
            None => return Err(EnqueueError::Closed),
        };
        written.map_err(|_| {
            self.close();
            EnqueueError::Closed
        })
    }

    /// Queues everything after the first `written` bytes of these frames.
    fn enqueue<'a>(&mut self, mut written: usize, frames: impl Iterator<Item = &'a Bytes>) {
        for frame in frames {
            if written < frame.len() {
                let unwritten = frame.slice(written..);
                self.queued_bytes += unwritten.len();
                self.queue.push_back(unwritten);
            }
            written = written.saturating_sub(frame.len());
        }
    }

    fn needs_drain(&self) -> bool {
        !self.queue.is_empty() || self.stream.as_ref().is_some_and(Stream::wants_flush)
    }

    /// Ready when the whole queue is written or the connection is closed. Draining ends then.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.poll_write_queue(cx) {
            Poll::Pending => {
                // `close` wakes this task; dropping the stream would not.
                self.drain_waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => self.close(),
        }
        // The queue is empty. A new one frees its memory.
        self.queue = VecDeque::new();
        self.is_draining = false;
        self.drained_waker.take().into_iter().for_each(Waker::wake);
        Poll::Ready(())
    }

    fn poll_write_queue(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(stream) = self.stream.as_mut().filter(|_| !self.is_closed) else {
            return Poll::Ready(Ok(()));
        };
        while let Some(frame) = self.queue.front_mut() {
            let count = ready!(Pin::new(&mut *stream).poll_write(cx, frame))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            frame.advance(count);
            self.queued_bytes -= count;
            if frame.is_empty() {
                self.queue.pop_front();
            }
        }
        Pin::new(stream).poll_flush(cx)
    }

    fn close(&mut self) {
        self.is_closed = true;
        self.is_draining = false;
        self.queue = VecDeque::new();
        self.queued_bytes = 0;
        let wakers = [self.drain_waker.take(), self.drained_waker.take()];
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests;
