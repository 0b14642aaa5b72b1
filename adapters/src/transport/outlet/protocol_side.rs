use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::super::connection::Peer;
use super::super::frames::FrameScan;
use super::super::stream::Stream;
use super::{Line, Outlet, Phase, State};

/// The connection as whoever speaks the protocol on it has it: the library, which reads and writes it, or
/// a session of ours, which only reads. It is closed when this is dropped.
pub(crate) struct ProtocolSide {
    line: Arc<Line>,
    when_dropped: Option<Box<dyn FnOnce() + Send>>,
}

impl ProtocolSide {
    /// So many frames may wait for a device that does not read.
    pub(in crate::transport) fn new(stream: Stream, peer: Peer, bound: usize) -> Self {
        let state = Mutex::new(State {
            stream,
            bound,
            scan: FrameScan::default(),
            with_library: VecDeque::new(),
            library_is_through: false,
            waiting: VecDeque::new(),
            is_draining: false,
            drain: None,
            library: None,
            phase: Phase::Open,
        });
        Self { line: Arc::new(Line { peer, state }), when_dropped: None }
    }

    pub(crate) fn outlet(&self) -> Outlet {
        Outlet(Arc::downgrade(&self.line))
    }

    /// The only way in which this connection is written to from now on: nothing waits for a library that
    /// has something to write first.
    pub(crate) fn only_outlet(&self) -> Outlet {
        self.line.state.lock().library_is_through = true;
        self.outlet()
    }

    /// Whether the last word was said (see [`Outlet::say_last`]), so that no more is to be listened to.
    pub(crate) fn has_said_last(&self) -> bool {
        self.line.state.lock().phase != Phase::Open
    }

    /// Has this done when the connection is let go of.
    pub(crate) fn when_dropped(&mut self, act: impl FnOnce() + Send + 'static) {
        self.when_dropped = Some(Box::new(act));
    }
}

impl AsyncRead for ProtocolSide {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.line.state.lock().stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for ProtocolSide {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.line.state.lock();
        if state.is_closed() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        // A push that waits goes before the library's next frame, and never into one.
        let mut most = bytes.len();
        if state.is_draining {
            if state.scan.is_between_frames() {
                return state.library_waits(cx);
            }
            most = state.scan.left().min(most);
        }
        match Pin::new(&mut state.stream).poll_write(cx, &bytes[..most]) {
            Poll::Ready(Ok(count)) => {
                state.library_wrote(bytes, count);
                Poll::Ready(Ok(count))
            }
            Poll::Ready(Err(error)) => {
                state.close();
                Poll::Ready(Err(error))
            }
            // Should pushes wait meanwhile, they take its place with the kernel.
            Poll::Pending => state.library_waits(cx),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.line.state.lock();
        if state.is_draining && !state.is_closed() {
            return state.library_waits(cx);
        }
        match Pin::new(&mut state.stream).poll_flush(cx) {
            Poll::Pending => state.library_waits(cx),
            done @ Poll::Ready(_) => done,
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.line.state.lock();
        ready!(Pin::new(&mut state.stream).poll_shutdown(cx))?;
        state.close();
        Poll::Ready(Ok(()))
    }
}

impl Drop for ProtocolSide {
    fn drop(&mut self) {
        self.line.state.lock().close();
        if let Some(act) = self.when_dropped.take() {
            act();
        }
    }
}
