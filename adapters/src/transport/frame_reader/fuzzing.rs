use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, ReadBuf};
use tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, WebSocket};

use super::{Frame, FrameReader, Head, ReadError};
use crate::fuzzing::first_line;

/// So small that a short input goes beyond it.
const LIMIT: usize = 500;

/// Reads the frames in `bytes`, up to a close frame. The first line sets the sizes of the reads, one character each
/// counted from `0`, repeated as needed; if it is empty, there is one read. The rest is what a client sends.
///
/// The frames do not depend on how the reads are split, they respect the limits, tungstenite reads the same, little
/// is buffered, and an unmasked first frame is rejected.
///
/// # Panics
/// When that does not hold.
pub(crate) fn frames(bytes: &[u8]) -> Vec<Frame> {
    let (line, wire) = first_line(bytes);
    let sizes = line.iter().map(|size| usize::from(size.wrapping_sub(b'0')).max(1));
    let (mut heard, end) = heard_in(LIMIT, Pieces::of(wire, sizes.cycle()));
    let (at_once, end_at_once) = heard_in(LIMIT, Pieces::of(wire, std::iter::empty()));
    assert_eq!(heard, at_once);
    assert_eq!(end.to_string(), end_at_once.to_string());
    assert!(heard.iter().all(is_within_limits), "{heard:?}");
    assert_unmasked_is_refused(wire);
    let close = heard.iter().position(|heard| matches!(heard, Frame::Close(_)));
    heard.truncate(close.map_or(heard.len(), |close| close + 1));
    assert_tungstenite_hears(&heard, &end, wire);
    heard
}

/// Everything that is read of that, up to what cannot be.
pub(super) fn heard_in(limit: usize, mut from: impl AsyncRead + Unpin) -> (Vec<Frame>, ReadError) {
    let mut cx = Context::from_waker(Waker::noop());
    let mut reader = FrameReader::new(limit);
    let mut all = Vec::new();
    loop {
        match reader.poll_next(&mut cx, &mut from) {
            Poll::Pending => assert_keeps_little(&reader, limit),
            Poll::Ready(Ok(heard)) => all.push(heard),
            Poll::Ready(Err(end)) => return (all, end),
        }
    }
}

fn assert_keeps_little(reader: &FrameReader, limit: usize) {
    const HEAD: usize = 14;
    let FrameReader { buffer, at, fragments, .. } = reader;
    assert!(buffer.len() - at < HEAD + limit, "{reader:?}");
    assert_eq!(buffer.is_empty(), buffer.capacity() == 0, "{reader:?}");
    assert!(fragments.as_ref().is_none_or(|(_, message)| message.len() <= limit), "{reader:?}");
}

fn is_within_limits(heard: &Frame) -> bool {
    match heard {
        Frame::Text(text) => text.len() <= LIMIT,
        Frame::Binary(bytes) => bytes.len() <= LIMIT,
        Frame::Ping(payload) => payload.len() <= Head::CONTROL,
        Frame::Fragment | Frame::Pong | Frame::Close(_) => true,
    }
}

fn assert_unmasked_is_refused(wire: &[u8]) {
    let mut wire = wire.to_vec();
    let Some(length) = wire.get_mut(1) else { return };
    *length &= 0x7f;
    let (heard, end) = heard_in(LIMIT, Pieces::of(&wire, std::iter::empty()));
    assert!(heard.is_empty() && matches!(end, ReadError::Violation(_)), "{heard:?} {end}");
}

/// Tungstenite may say sooner that fragments are no text, and later that a frame is refused by its head.
fn assert_tungstenite_hears(heard: &[Frame], end: &ReadError, wire: &[u8]) {
    let config = WebSocketConfig::default()
        .read_buffer_size(FrameReader::CHUNK)
        .max_message_size(Some(LIMIT))
        .max_frame_size(Some(LIMIT));
    let mut theirs = WebSocket::from_raw_socket(OneWay(wire), Role::Server, Some(config));
    for ours in heard.iter().filter(|heard| **heard != Frame::Fragment) {
        match (ours, theirs.read()) {
            (Frame::Text(ours), Ok(Message::Text(theirs))) => assert_eq!(**ours, *theirs),
            (Frame::Binary(ours), Ok(Message::Binary(theirs)))
            | (Frame::Ping(ours), Ok(Message::Ping(theirs))) => assert_eq!(**ours, *theirs),
            (Frame::Pong, Ok(Message::Pong(_))) => {}
            // Which statuses may be sent is looked at by them, and not by us.
            (Frame::Close(ours), Ok(Message::Close(theirs))) => {
                assert_eq!(ours.is_some(), theirs.is_some());
                return;
            }
            (_, Err(Error::Utf8(_))) => return,
            (ours, theirs) => panic!("{ours:?} {theirs:?}"),
        }
    }
    match theirs.read() {
        Err(Error::Utf8(_) | Error::Protocol(ResetWithoutClosingHandshake)) => {}
        Err(_)
            if matches!(
                end,
                ReadError::Violation(_) | ReadError::NotUtf8 | ReadError::TooLarge
            ) => {}
        theirs => panic!("{end:?} {theirs:?}"),
    }
}

/// Bytes that come in pieces, and every other time not at once.
pub(super) struct Pieces<'a, S> {
    rest: &'a [u8],
    sizes: S,
    waits: bool,
}

impl<'a, S: Iterator<Item = usize>> Pieces<'a, S> {
    /// Where there are no more sizes, the rest is one piece.
    pub(super) fn of(wire: &'a [u8], sizes: S) -> Self {
        Self { rest: wire, sizes, waits: false }
    }
}

impl<S: Iterator<Item = usize> + Unpin> AsyncRead for Pieces<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.waits = !self.waits;
        if self.waits {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let size = self.sizes.next().unwrap_or(usize::MAX);
        let (piece, rest) = self.rest.split_at(size.min(buf.remaining()).min(self.rest.len()));
        buf.put_slice(piece);
        self.rest = rest;
        Poll::Ready(Ok(()))
    }
}

/// A connection whose peer does not listen.
struct OneWay<'a>(&'a [u8]);

impl Read for OneWay<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Write for OneWay<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
