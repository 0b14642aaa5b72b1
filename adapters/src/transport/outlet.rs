//! One WebSocket that several write to. Where it was opened as one, everything goes out by an [`Outlet`],
//! from whatever task has something to say. Where a polling session was upgraded to it, two write: the
//! Socket.IO library its packets, and Belfry its pushes, past the library's queue.
//!
//! A push by way of the library is copied three times, put into a queue and written by another task,
//! which costs more than all the rest of a delivery. Most of the time nothing stands in that queue, and
//! the push can go straight to the kernel ([`Outlet::write`]) between two frames of the library's.
//! Whatever the library is to write first, it writes first: see [`Outlet::by_library`].

mod protocol_side;

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use parking_lot::{Mutex, MutexGuard};
use tokio::io::AsyncWrite as _;
use tokio::time::Instant;

use super::connection::Peer;
use super::frames::{FrameScan, LastWord};
use super::stream::Stream;

pub(crate) use protocol_side::ProtocolSide;

/// The connection as pushes are written to it. It does not keep the connection open.
#[derive(Clone)]
pub(crate) struct Outlet(Weak<Line>);

/// Why frames were not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// The device reads too slowly: as many wait as may.
    Full,
    /// The connection is gone.
    Closed,
    /// The library has frames to write before; these must go by way of it.
    NotYet,
}

struct Line {
    peer: Peer,
    state: Mutex<State>,
}

struct State {
    stream: Stream,
    /// How many frames may wait for a device that does not read.
    bound: usize,
    scan: FrameScan,
    /// Pushes that the library was given and has not written, as they will be on the wire.
    with_library: VecDeque<Bytes>,
    /// Whether the library has written whatever it was given; never, before it has written a first.
    library_is_through: bool,
    /// Frames that the kernel did not take, to be written before anything else.
    waiting: VecDeque<Bytes>,
    /// Whether a task is writing them.
    is_draining: bool,
    /// That task, and the library's, where they wait for each other.
    drain: Option<Waker>,
    library: Option<Waker>,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// The last word was said: nothing may follow it.
    Parting,
    Closed,
}

impl Outlet {
    /// What is queued for a device gets this long to be written before its connection is cut …
    pub(crate) const GRACE: Duration = Duration::from_millis(25);
    /// … and its last word so long. One that does not take it is not waited for any longer.
    pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

    /// Writes whole WebSocket frames, one behind the other, unless the library is to write others before.
    pub(crate) fn write<'a>(
        &self,
        frames: impl Iterator<Item = &'a Bytes> + Clone,
    ) -> Result<(), NotTaken> {
        let line = self.0.upgrade().ok_or(NotTaken::Closed)?;
        let mut state = line.state.lock();
        line.write(&mut state, frames)
    }

    /// Gives frames to the library, in this order, up to the first that it does not take: `emit` queues
    /// there the one at that place. No other frame of a push goes out before the library has written
    /// them.
    pub(crate) fn by_library<'a, E>(
        &self,
        frames: impl Iterator<Item = &'a Bytes>,
        mut emit: impl FnMut(usize) -> Result<(), E>,
    ) -> Result<(), E> {
        let line = self.0.upgrade();
        // Kept to the end: neither may another push come between, nor the library be through with these
        // before they are noted.
        let mut state = line.as_ref().map(|line| line.state.lock());
        for (place, frame) in frames.enumerate() {
            emit(place)?;
            if let Some(state) = &mut state {
                state.library_is_through = false;
                state.with_library.push_back(frame.clone());
                if state.with_library.len() > state.bound {
                    state.with_library.pop_front();
                }
            }
        }
        Ok(())
    }

    /// Whether the library has written this as its last word; `true` also if the connection is gone.
    pub(super) fn has_said(&self, last_word: LastWord) -> bool {
        self.0.upgrade().is_none_or(|line| {
            let state = line.state.lock();
            state.is_closed() || state.scan.has_said(last_word)
        })
    }

    /// Writes the last frame of all, and cuts the connection once it is out.
    pub(crate) fn say_last(&self, frame: &Bytes) {
        if let Some(line) = self.0.upgrade() {
            let mut state = line.state.lock();
            // One that takes nothing more does not hear it, and is cut all the same.
            let _ = line.write(&mut state, [frame].into_iter());
            if !state.is_closed() {
                state.phase = Phase::Parting;
            }
        }
        let outlet = self.clone();
        tokio::spawn(async move {
            Self::until_out(|| !outlet.has_waiting()).await;
            outlet.hang_up();
        });
    }

    /// Waits until a last word is out, as long as that may take at most.
    pub(super) async fn until_out(is_out: impl Fn() -> bool) {
        let begin = Instant::now();
        tokio::time::sleep(Self::GRACE).await;
        while !is_out() && begin.elapsed() < Self::PATIENCE {
            tokio::time::sleep(Self::GRACE / 5).await;
        }
    }

    /// Cuts the connection, once what was written had the time to get there.
    pub(crate) fn hang_up_soon(&self) {
        let outlet = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Self::GRACE).await;
            outlet.hang_up();
        });
    }

    fn has_waiting(&self) -> bool {
        self.0.upgrade().is_some_and(|line| line.state.lock().is_draining)
    }

    /// Cuts the connection.
    pub(crate) fn hang_up(&self) {
        if let Some(line) = self.0.upgrade() {
            line.peer.hang_up();
        }
    }

    pub(super) fn is_gone(&self) -> bool {
        self.0.strong_count() == 0
    }
}

impl Line {
    fn write<'a>(
        self: &Arc<Self>,
        state: &mut MutexGuard<'_, State>,
        frames: impl Iterator<Item = &'a Bytes> + Clone,
    ) -> Result<(), NotTaken> {
        if state.phase != Phase::Open || state.scan.has_closed() {
            return Err(NotTaken::Closed);
        }
        if !state.library_is_through {
            return Err(NotTaken::NotYet);
        }
        let count = frames.clone().count();
        if state.waiting.len() + count > state.bound {
            return Err(NotTaken::Full);
        }
        // Whatever waits is being drained.
        let at_once = !state.is_draining && state.scan.is_between_frames();
        let written = if at_once { state.write_now(frames.clone())? } else { 0 };
        state.wait_from(written, frames);
        if state.needs_drain() {
            self.drain(state);
        }
        Ok(())
    }

    /// Has a task write what waits; the next ones wait behind it.
    fn drain(self: &Arc<Self>, state: &mut MutexGuard<'_, State>) {
        if std::mem::replace(&mut state.is_draining, true) {
            return;
        }
        let line = Arc::downgrade(self);
        tokio::spawn(std::future::poll_fn(move |cx| {
            let Some(line) = line.upgrade() else { return Poll::Ready(()) };
            line.state.lock().poll_drain(cx)
        }));
    }
}

impl State {
    fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// Writes as much as the kernel takes now, and answers how many bytes that was.
    fn write_now<'a>(
        &mut self,
        frames: impl Iterator<Item = &'a Bytes>,
    ) -> Result<usize, NotTaken> {
        self.stream.write_now(frames).map_err(|_| {
            self.close();
            NotTaken::Closed
        })
    }

    /// Has what is behind the first bytes of these frames wait.
    fn wait_from<'a>(&mut self, mut written: usize, frames: impl Iterator<Item = &'a Bytes>) {
        for frame in frames {
            if written < frame.len() {
                self.waiting.push_back(frame.slice(written..));
            }
            written = written.saturating_sub(frame.len());
        }
    }

    fn needs_drain(&self) -> bool {
        !self.waiting.is_empty() || self.stream.wants_flush()
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.is_closed() {
            match self.poll_write_waiting(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => self.close(),
                Poll::Pending => {
                    // The library's frame may end, or the connection be closed.
                    self.drain = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            }
        }
        self.is_draining = false;
        self.waiting = VecDeque::new();
        self.library.take().into_iter().for_each(Waker::wake);
        Poll::Ready(())
    }

    /// Writes and flushes all that waits. Behind a frame of the library's that is under way this is
    /// pending, and it is the library that wakes.
    fn poll_write_waiting(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.scan.is_between_frames() {
            return Poll::Pending;
        }
        while let Some(frame) = self.waiting.front_mut() {
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, frame))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            frame.advance(count);
            if frame.is_empty() {
                self.waiting.pop_front();
            }
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// The library waits for its turn.
    fn library_waits<T>(&mut self, cx: &Context<'_>) -> Poll<T> {
        self.library = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The library has written so many of these bytes.
    fn library_wrote(&mut self, bytes: &[u8], count: usize) {
        let Self { scan, with_library, .. } = self;
        scan.advance(bytes, count, |frame| {
            // Those before it went elsewhere, by the polling transport that this one has replaced.
            if let Some(place) = with_library.iter().position(|its| its == frame) {
                with_library.drain(..=place);
                self.library_is_through = with_library.is_empty();
            }
        });
        if self.scan.is_lost() {
            return self.close();
        }
        if self.library_is_through && self.with_library.capacity() > 0 {
            self.with_library = VecDeque::new();
        }
        if self.scan.is_between_frames() {
            self.drain.take().into_iter().for_each(Waker::wake);
        }
    }

    fn close(&mut self) {
        self.phase = Phase::Closed;
        self.waiting = VecDeque::new();
        self.with_library = VecDeque::new();
        self.drain.take().into_iter().for_each(Waker::wake);
        self.library.take().into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests;
