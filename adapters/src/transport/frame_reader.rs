//! Reads the frames that clients send over a WebSocket (RFC 6455, section 5): masked, and possibly fragmented.
//!
//! There are many connections, and each is idle nearly all of the time. The reader therefore has no buffer between
//! frames.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use super::frames::{BINARY, CLOSE, CONTINUATION, FINAL, PING, PONG, TEXT, close_code};

/// A received frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// The last or only frame of a text message, with the whole message.
    Text(String),
    /// The last or only frame of a binary message, with the whole message.
    Binary(Vec<u8>),
    /// A fragment of a message that is not complete yet.
    Fragment,
    /// Must be answered with a pong of the same payload.
    Ping(Vec<u8>),
    /// An answer to a ping, or unsolicited.
    Pong,
    /// The peer starts the closing handshake, with a status code or without.
    Close(Option<u16>),
}

/// Why nothing more can be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The peer closed the connection without the closing handshake.
    #[error("the connection has ended")]
    Gone,
    /// The connection failed.
    #[error(transparent)]
    Broken(#[from] io::Error),
    /// A frame violates the protocol.
    #[error("{0}")]
    Violation(&'static str),
    /// A text message is not UTF-8.
    #[error("text is not UTF-8")]
    NotUtf8,
    /// A message exceeds the limit.
    #[error("message too large")]
    TooLarge,
}

impl ReadError {
    /// The status code of the close frame for this error (section 7.4.1); `None` if the connection is gone.
    pub(crate) const fn close_code(&self) -> Option<u16> {
        match self {
            Self::Gone | Self::Broken(_) => None,
            Self::Violation(_) => Some(close_code::PROTOCOL_ERROR),
            Self::NotUtf8 => Some(close_code::INVALID_PAYLOAD),
            Self::TooLarge => Some(close_code::TOO_LARGE),
        }
    }
}

/// Reads frames of messages up to `limit` bytes.
#[derive(Debug)]
pub(crate) struct FrameReader {
    limit: usize,
    /// Bytes read from the connection. Empty, and without an allocation, between frames.
    buffer: Vec<u8>,
    /// The index of the first unprocessed frame in the buffer.
    frame_start: usize,
    /// The kind of an incomplete fragmented message, and its fragments so far.
    fragments: Option<(MessageKind, Vec<u8>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MessageKind {
    Text,
    Binary,
}

impl FrameReader {
    /// Bytes per read. The reader does not allocate the length that a frame announces, so a client that announces
    /// a large frame and sends little costs little.
    const CHUNK: usize = 4_096;

    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, buffer: Vec::new(), frame_start: 0, fragments: None }
    }

    /// Raises the limit. Returns `false` if it was not lower than `limit`. After [`ReadError::TooLarge`], the same
    /// frame can be read with the higher limit.
    pub(crate) fn raise_limit(&mut self, limit: usize) -> bool {
        let is_lower = self.limit < limit;
        self.limit = self.limit.max(limit);
        is_lower
    }

    /// The next frame. Cancel safe: no byte is lost when the caller stops polling.
    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
    ) -> Poll<Result<Frame, ReadError>> {
        loop {
            if let Some(frame) = self.take()? {
                return Poll::Ready(Ok(frame));
            }
            ready!(self.poll_fill(cx, from))?;
        }
    }

    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
    ) -> Poll<Result<(), ReadError>> {
        let mut chunk = [MaybeUninit::uninit(); Self::CHUNK];
        let mut read = ReadBuf::uninit(&mut chunk);
        ready!(Pin::new(from).poll_read(cx, &mut read))?;
        if read.filled().is_empty() {
            return Poll::Ready(Err(ReadError::Gone));
        }
        self.buffer.drain(..std::mem::take(&mut self.frame_start));
        self.buffer.extend_from_slice(read.filled());
        Poll::Ready(Ok(()))
    }

    /// The next frame in the buffer, once it is complete.
    fn take(&mut self) -> Result<Option<Frame>, ReadError> {
        let unprocessed = &self.buffer[self.frame_start..];
        let Some(head) = FrameHead::read(unprocessed)? else { return Ok(None) };
        self.check(&head)?;
        let begin = self.frame_start + head.length;
        let end = begin + head.payload_length;
        let Some(payload) = self.buffer.get_mut(begin..end) else { return Ok(None) };
        unmask(payload, head.mask);
        let payload = payload.to_vec();
        self.frame_start = end;
        if self.frame_start == self.buffer.len() {
            (self.buffer, self.frame_start) = (Vec::new(), 0);
        }
        self.read(&head, payload).map(Some)
    }

    /// Checks whether a frame with this head is allowed now, before any of its payload has arrived.
    fn check(&self, head: &FrameHead) -> Result<(), ReadError> {
        // The length of the fragments that the frame continues.
        let before = match (head.opcode, &self.fragments) {
            (CONTINUATION, None) => return violation("continuation frame without a message"),
            (CONTINUATION, Some((_, fragments))) => fragments.len(),
            (TEXT | BINARY, Some(_)) => return violation("data frame inside a fragmented message"),
            _ => 0,
        };
        if head.payload_length > self.limit.saturating_sub(before) {
            return Err(ReadError::TooLarge);
        }
        Ok(())
    }

    /// Interprets a complete frame.
    fn read(&mut self, head: &FrameHead, payload: Vec<u8>) -> Result<Frame, ReadError> {
        match head.opcode {
            PING => Ok(Frame::Ping(payload)),
            PONG => Ok(Frame::Pong),
            CLOSE => status(&payload).map(Frame::Close),
            opcode => {
                let kind = if opcode == TEXT { MessageKind::Text } else { MessageKind::Binary };
                self.assemble(kind, payload, head.is_final)
            }
        }
    }

    /// Adds the payload of a data frame to its message. Returns the message when the frame is the final one. `kind`
    /// is ignored for a continuation frame: the first frame of its message set the kind.
    fn assemble(
        &mut self,
        kind: MessageKind,
        payload: Vec<u8>,
        is_final: bool,
    ) -> Result<Frame, ReadError> {
        let (kind, message) = match self.fragments.take() {
            Some((kind, mut fragments)) => {
                fragments.extend(payload);
                (kind, fragments)
            }
            None => (kind, payload),
        };
        if !is_final {
            self.fragments = Some((kind, message));
            return Ok(Frame::Fragment);
        }
        match kind {
            MessageKind::Binary => Ok(Frame::Binary(message)),
            MessageKind::Text => match String::from_utf8(message) {
                Ok(text) => Ok(Frame::Text(text)),
                Err(_) => Err(ReadError::NotUtf8),
            },
        }
    }
}

/// The head of a frame from a client.
struct FrameHead {
    opcode: u8,
    is_final: bool,
    /// The head's own length in bytes.
    length: usize,
    /// The payload's length in bytes.
    payload_length: usize,
    mask: [u8; 4],
}

impl FrameHead {
    /// The largest payload of a control frame (section 5.5).
    const MAX_CONTROL_PAYLOAD: usize = 125;

    /// Parses a head. `None` while it is incomplete. A violation is reported as soon as it can be detected.
    fn read(bytes: &[u8]) -> Result<Option<Self>, ReadError> {
        let (Some(first), Some(second)) = (bytes.first(), bytes.get(1)) else { return Ok(None) };
        let (opcode, is_final) = (first & 0x0f, first & FINAL != 0);
        if first & 0x70 != 0 {
            return violation("reserved bit set");
        }
        if !matches!(opcode, CONTINUATION | TEXT | BINARY | CLOSE | PING | PONG) {
            return violation("reserved opcode");
        }
        if second & 0x80 == 0 {
            return violation("frame is not masked");
        }
        let is_control = opcode & 0x8 != 0;
        if is_control && !is_final {
            return violation("fragmented control frame");
        }
        let (extended_length, payload_length) = match second & 0x7f {
            126 => (2, number(bytes, 2)),
            127 => (8, number(bytes, 8)),
            short => (0, Some(u64::from(short))),
        };
        let Some(payload_length) = payload_length else { return Ok(None) };
        let payload_length = usize::try_from(payload_length).map_err(|_| ReadError::TooLarge)?;
        if is_control && payload_length > Self::MAX_CONTROL_PAYLOAD {
            return violation("control frame too large");
        }
        // The two first bytes, the extended length and the mask.
        let length = 2 + extended_length + 4;
        let Some(mask) = bytes.get(length - 4..length).and_then(|mask| mask.try_into().ok()) else {
            return Ok(None);
        };
        Ok(Some(Self { opcode, is_final, length, payload_length, mask }))
    }
}

/// The big-endian number in the `width` bytes after the first two; `None` if they are incomplete.
fn number(bytes: &[u8], width: usize) -> Option<u64> {
    let bytes = bytes.get(2..2 + width)?;
    Some(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    for part in payload.chunks_mut(mask.len()) {
        for (byte, mask) in part.iter_mut().zip(mask) {
            *byte ^= mask;
        }
    }
}

/// The status code of a closing handshake (section 7.1.5), if there is one.
fn status(payload: &[u8]) -> Result<Option<u16>, ReadError> {
    match payload {
        [] => Ok(None),
        [high, low, reason @ ..] if std::str::from_utf8(reason).is_ok() => {
            Ok(Some(u16::from_be_bytes([*high, *low])))
        }
        _ => violation("malformed close frame"),
    }
}

fn violation<T>(what: &'static str) -> Result<T, ReadError> {
    Err(ReadError::Violation(what))
}

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
#[cfg(test)]
pub(super) mod tests;
