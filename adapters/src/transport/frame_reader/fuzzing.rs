use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, ReadBuf};
use tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, WebSocket};

use super::{Frame, FrameHead, FrameReader, ReadError};
use crate::fuzzing::split_first_line;

/// The limit of a message in bytes. It is small, so that a short input can exceed it.
const LIMIT: usize = 500;

/// Returns the frames in `bytes`, up to a close frame. The first line sets the sizes of the reads: each character is
/// one size, counted from `0`, and the sizes are repeated. If the line is empty, one read returns everything. The
/// bytes after the line are those that a client sends.
///
/// Checks that the frames do not depend on how the reads are split, that they respect the limits, that tungstenite
/// reads the same frames, that little is buffered, and that an unmasked first frame is rejected.
///
/// # Panics
/// If a check fails.
pub(crate) fn frames(bytes: &[u8]) -> Vec<Frame> {
    let (line, wire) = split_first_line(bytes);
    let sizes = line.iter().map(|size| usize::from(size.wrapping_sub(b'0')).max(1));
    let (mut frames, end) = read_all(LIMIT, SplitReads::of(wire, sizes.cycle()));
    let (at_once, end_at_once) = read_all(LIMIT, SplitReads::of(wire, std::iter::empty()));
    assert_eq!(frames, at_once);
    assert_eq!(end.to_string(), end_at_once.to_string());
    assert!(frames.iter().all(is_within_limits), "{frames:?}");
    assert_unmasked_is_rejected(wire);
    let close = frames.iter().position(|frame| matches!(frame, Frame::Close(_)));
    frames.truncate(close.map_or(frames.len(), |close| close + 1));
    assert_tungstenite_agrees(&frames, &end, wire);
    frames
}

/// All frames of this input, and the error that ends it.
pub(super) fn read_all(limit: usize, mut from: impl AsyncRead + Unpin) -> (Vec<Frame>, ReadError) {
    let mut cx = Context::from_waker(Waker::noop());
    let mut reader = FrameReader::new(limit);
    let mut all = Vec::new();
    loop {
        match reader.poll_next(&mut cx, &mut from) {
            Poll::Pending => assert_buffers_little(&reader, limit),
            Poll::Ready(Ok(frame)) => all.push(frame),
            Poll::Ready(Err(end)) => return (all, end),
        }
    }
}

fn assert_buffers_little(reader: &FrameReader, limit: usize) {
    /// The length of the longest frame head, in bytes.
    const MAX_HEAD: usize = 14;
    let FrameReader { buffer, frame_start, fragments, .. } = reader;
    assert!(buffer.len() - frame_start < MAX_HEAD + limit, "{reader:?}");
    assert_eq!(buffer.is_empty(), buffer.capacity() == 0, "{reader:?}");
    assert!(fragments.as_ref().is_none_or(|(_, message)| message.len() <= limit), "{reader:?}");
}

fn is_within_limits(frame: &Frame) -> bool {
    match frame {
        Frame::Text(text) => text.len() <= LIMIT,
        Frame::Binary(bytes) => bytes.len() <= LIMIT,
        Frame::Ping(payload) => payload.len() <= FrameHead::MAX_CONTROL_PAYLOAD,
        Frame::Fragment | Frame::Pong | Frame::Close(_) => true,
    }
}

fn assert_unmasked_is_rejected(wire: &[u8]) {
    let mut wire = wire.to_vec();
    // The highest bit of the second byte says that the frame is masked.
    let Some(second) = wire.get_mut(1) else { return };
    *second &= 0x7f;
    let (frames, end) = read_all(LIMIT, SplitReads::of(&wire, std::iter::empty()));
    assert!(frames.is_empty() && matches!(end, ReadError::Violation(_)), "{frames:?} {end}");
}

/// Checks that tungstenite reads the same frames. It may detect invalid UTF-8 in fragments earlier, and an invalid
/// frame head later.
fn assert_tungstenite_agrees(frames: &[Frame], end: &ReadError, wire: &[u8]) {
    let config = WebSocketConfig::default()
        .read_buffer_size(FrameReader::CHUNK)
        .max_message_size(Some(LIMIT))
        .max_frame_size(Some(LIMIT));
    let mut theirs = WebSocket::from_raw_socket(OneWay(wire), Role::Server, Some(config));
    for ours in frames.iter().filter(|frame| **frame != Frame::Fragment) {
        match (ours, theirs.read()) {
            (Frame::Text(ours), Ok(Message::Text(theirs))) => assert_eq!(**ours, *theirs),
            (Frame::Binary(ours), Ok(Message::Binary(theirs)))
            | (Frame::Ping(ours), Ok(Message::Ping(theirs))) => assert_eq!(**ours, *theirs),
            (Frame::Pong, Ok(Message::Pong(_))) => {}
            // Only tungstenite checks which status codes may be sent.
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

/// Returns bytes in reads of the given sizes. Every second read is pending first.
pub(super) struct SplitReads<'a, S> {
    remaining: &'a [u8],
    sizes: S,
    /// Whether the last read was pending.
    is_pending: bool,
}

impl<'a, S: Iterator<Item = usize>> SplitReads<'a, S> {
    /// After the last size, one read returns all remaining bytes.
    pub(super) fn of(wire: &'a [u8], sizes: S) -> Self {
        Self { remaining: wire, sizes, is_pending: false }
    }
}

impl<S: Iterator<Item = usize> + Unpin> AsyncRead for SplitReads<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.is_pending = !self.is_pending;
        if self.is_pending {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let size = self.sizes.next().unwrap_or(usize::MAX);
        let size = size.min(buf.remaining()).min(self.remaining.len());
        let (chunk, remaining) = self.remaining.split_at(size);
        buf.put_slice(chunk);
        self.remaining = remaining;
        Poll::Ready(Ok(()))
    }
}

/// A connection that discards written data.
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
