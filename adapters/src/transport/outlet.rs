//! One WebSocket that two write to: the Socket.IO library its packets, and Belfry its pushes, past the
//! library's queue.
//!
//! A push by way of the library is copied three times, put into a queue and written by another task,
//! which costs more than all the rest of a delivery. Most of the time nothing stands in that queue, and
//! the push can go straight to the kernel ([`Outlet::write`]) between two frames of the library's.
//! Whatever the library is to write first, it writes first: see [`Outlet::by_library`].

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf as _, Bytes};
use parking_lot::{Mutex, MutexGuard};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::Peer;
use super::frames::{FrameScan, LastWord};
use super::stream::Stream;

/// The connection as the library reads and writes it. It is closed when this is dropped.
pub(crate) struct LibrarySide {
    line: Arc<Line>,
    when_dropped: Option<Box<dyn FnOnce() + Send>>,
}

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
    is_closed: bool,
}

impl LibrarySide {
    /// So many frames may wait for a device that does not read.
    pub(super) fn new(stream: Stream, peer: Peer, bound: usize) -> Self {
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
            is_closed: false,
        });
        Self { line: Arc::new(Line { peer, state }), when_dropped: None }
    }

    pub(crate) fn outlet(&self) -> Outlet {
        Outlet(Arc::downgrade(&self.line))
    }

    /// Has this done when the library lets go of the connection.
    pub(crate) fn when_dropped(&mut self, act: impl FnOnce() + Send + 'static) {
        self.when_dropped = Some(Box::new(act));
    }
}

impl Outlet {
    /// Writes whole frames, each as text of one WebSocket frame, one behind the other, unless the
    /// library is to write others before.
    pub(crate) fn write<'a>(
        &self,
        frames: impl Iterator<Item = &'a Bytes> + Clone,
    ) -> Result<(), NotTaken> {
        let line = self.0.upgrade().ok_or(NotTaken::Closed)?;
        let mut state = line.state.lock();
        if state.is_closed || state.scan.has_closed() {
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
            line.drain(&mut state);
        }
        Ok(())
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
            state.is_closed || state.scan.has_said(last_word)
        })
    }

    /// Cuts the connection.
    pub(super) fn hang_up(&self) {
        if let Some(line) = self.0.upgrade() {
            line.peer.hang_up();
        }
    }

    pub(super) fn is_gone(&self) -> bool {
        self.0.strong_count() == 0
    }
}

impl Line {
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
        if !self.is_closed {
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
        self.is_closed = true;
        self.waiting = VecDeque::new();
        self.with_library = VecDeque::new();
        self.drain.take().into_iter().for_each(Waker::wake);
        self.library.take().into_iter().for_each(Waker::wake);
    }
}

impl AsyncRead for LibrarySide {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.line.state.lock().stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for LibrarySide {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.line.state.lock();
        if state.is_closed {
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
        if state.is_draining && !state.is_closed {
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

impl Drop for LibrarySide {
    fn drop(&mut self) {
        self.line.state.lock().close();
        if let Some(act) = self.when_dropped.take() {
            act();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::super::admission::{Admission, ConnectionLimits};
    use super::super::connection::{Connection, Socket};
    use super::super::frames::text_frame;
    use super::*;

    const BOUND: usize = 64;

    /// A connection as the library has it, and its client, which has small buffers.
    async fn connected() -> (LibrarySide, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, address) = listener.accept().await.unwrap();
        for stream in [&server, &client] {
            socket2::SockRef::from(stream).set_send_buffer_size(4_096).unwrap();
            socket2::SockRef::from(stream).set_recv_buffer_size(4_096).unwrap();
        }
        let place = Admission::new(ConnectionLimits::default()).connection(None).unwrap();
        let (connection, peer) = Connection::new(Socket::Tcp(server), address, place);
        (LibrarySide::new(Stream::plain(connection), peer, BOUND), client)
    }

    fn frame(text: &str) -> Bytes {
        text_frame(&[text])
    }

    /// Has the library write a first push, so that the next ones need not go by way of it.
    async fn warmed_up(library: &mut LibrarySide, client: &mut TcpStream) {
        let first = frame("42[\"first\"]");
        let outlet = library.outlet();
        outlet.by_library([&first].into_iter(), |_| Ok::<_, ()>(())).unwrap();
        library.write_all(&first).await.unwrap();
        let mut read = vec![0; first.len()];
        client.read_exact(&mut read).await.unwrap();
    }

    async fn texts(client: &mut TcpStream, count: usize) -> Vec<String> {
        let mut texts = Vec::new();
        for _ in 0..count {
            let mut head = [0; 2];
            client.read_exact(&mut head).await.unwrap();
            assert_eq!(head[0], 0x81, "a frame begins");
            let length = match head[1] {
                126 => client.read_u16().await.unwrap(),
                short => u16::from(short),
            };
            let mut text = vec![0; usize::from(length)];
            client.read_exact(&mut text).await.unwrap();
            texts.push(String::from_utf8(text).unwrap());
        }
        texts
    }

    #[tokio::test]
    async fn a_push_waits_for_those_that_the_library_has_not_written() {
        let (mut library, mut client) = connected().await;
        let outlet = library.outlet();
        let (first, second) = (frame("42[1]"), frame("42[2]"));
        assert_eq!(outlet.write([&first].into_iter()), Err(NotTaken::NotYet));
        outlet.by_library([&first, &second].into_iter(), |_| Ok::<_, ()>(())).unwrap();
        library.write_all(&frame("40{\"sid\":\"s\"}")).await.unwrap();
        library.write_all(&first).await.unwrap();
        assert_eq!(outlet.write([&frame("42[3]")].into_iter()), Err(NotTaken::NotYet));
        library.write_all(&second).await.unwrap();
        assert_eq!(outlet.write([&frame("42[3]"), &frame("42[4]")].into_iter()), Ok(()));
        let said = texts(&mut client, 5).await;
        assert_eq!(said, ["40{\"sid\":\"s\"}", "42[1]", "42[2]", "42[3]", "42[4]"]);
    }

    #[tokio::test]
    async fn what_the_library_could_not_queue_is_not_waited_for() {
        let (mut library, mut client) = connected().await;
        let outlet = library.outlet();
        let (first, second) = (frame("42[1]"), frame("42[2]"));
        let queue = |place| if place == 0 { Ok(()) } else { Err("full") };
        assert_eq!(outlet.by_library([&first, &second].into_iter(), queue), Err("full"));
        library.write_all(&first).await.unwrap();
        assert_eq!(outlet.write([&second].into_iter()), Ok(()));
        assert_eq!(texts(&mut client, 2).await, ["42[1]", "42[2]"]);
    }

    #[tokio::test]
    async fn pushes_that_went_elsewhere_are_not_waited_for() {
        let (mut library, mut client) = connected().await;
        let outlet = library.outlet();
        let (by_polling, by_websocket) = (frame("42[1]"), frame("42[2]"));
        let both = [&by_polling, &by_websocket];
        outlet.by_library(both.into_iter(), |_| Ok::<_, ()>(())).unwrap();
        library.write_all(&by_websocket).await.unwrap();
        assert_eq!(outlet.write([&frame("42[3]")].into_iter()), Ok(()));
        assert_eq!(texts(&mut client, 2).await, ["42[2]", "42[3]"]);
    }

    #[tokio::test]
    async fn a_push_never_comes_into_a_frame_of_the_library() {
        let (mut library, mut client) = connected().await;
        warmed_up(&mut library, &mut client).await;
        let outlet = library.outlet();
        let (theirs, ours) = (frame("43[\"theirs\"]"), frame("42[\"ours\"]"));
        library.write_all(&theirs[..5]).await.unwrap();
        // As the library does: what it shows is all that it has left to write.
        assert_eq!(outlet.write([&ours].into_iter()), Ok(()));
        library.write_all(&theirs[5..]).await.unwrap();
        assert_eq!(texts(&mut client, 2).await, ["43[\"theirs\"]", "42[\"ours\"]"]);
    }

    #[tokio::test]
    async fn a_device_that_does_not_read_has_so_much_wait_and_no_more() {
        let (mut library, mut client) = connected().await;
        warmed_up(&mut library, &mut client).await;
        let outlet = library.outlet();
        let text = |n: usize| format!("42[{n},\"{}\"]", "x".repeat(1_000));
        let mut sent = 0;
        loop {
            match outlet.write([&frame(&text(sent))].into_iter()) {
                Ok(()) => sent += 1,
                Err(not_taken) => break assert_eq!(not_taken, NotTaken::Full),
            }
        }
        assert!(sent > BOUND, "some the kernel took");
        let said = texts(&mut client, sent).await;
        assert!(said.iter().enumerate().all(|(n, said)| *said == text(n)));
        // All is well again once it has read.
        let again = async {
            while outlet.write([&frame("42[\"again\"]")].into_iter()).is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), again).await.unwrap();
        assert_eq!(texts(&mut client, 1).await, ["42[\"again\"]"]);
    }

    #[tokio::test]
    async fn nothing_waits_for_a_connection_that_is_gone() {
        let (mut library, mut client) = connected().await;
        warmed_up(&mut library, &mut client).await;
        let outlet = library.outlet();
        while outlet.write([&frame(&"x".repeat(1_000))].into_iter()).is_ok() {}
        drop(library);
        assert_eq!(outlet.write([&frame("42[]")].into_iter()), Err(NotTaken::Closed));
        tokio::time::timeout(Duration::from_secs(10), async {
            while !outlet.is_gone() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn both_write_whole_frames_in_their_own_order() {
        const EACH: usize = 2_000;
        let (mut library, mut client) = connected().await;
        warmed_up(&mut library, &mut client).await;
        let outlet = library.outlet();
        let text = |who: char, n: usize| format!("42[\"{who}\",{n},\"{}\"]", "y".repeat(n % 700));
        let ours = tokio::spawn(async move {
            for n in 0..EACH {
                let frame = frame(&text('o', n));
                while outlet.write([&frame].into_iter()) == Err(NotTaken::Full) {
                    tokio::task::yield_now().await;
                }
            }
        });
        let theirs = tokio::spawn(async move {
            for n in 0..EACH {
                library.write_all(&frame(&text('t', n))).await.unwrap();
                library.flush().await.unwrap();
            }
            library
        });
        let said = tokio::time::timeout(Duration::from_mins(1), texts(&mut client, 2 * EACH));
        let said = said.await.unwrap();
        for who in ['o', 't'] {
            let of_one = said.iter().filter(|text| text.starts_with(&format!("42[\"{who}\"")));
            assert!(of_one.enumerate().all(|(n, said)| *said == text(who, n)), "{who}");
        }
        ours.await.unwrap();
        drop(theirs.await.unwrap());
    }
}
