//! The frames of a WebSocket as a server reads them: masked, and a message perhaps in fragments (RFC 6455,
//! section 5).
//!
//! A connection spends nearly all of its time waiting for a frame, and there are many connections: what
//! is kept meanwhile is a few words, and no buffer.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use super::frames::{BINARY, CLOSE, CONTINUATION, FINAL, PING, PONG, TEXT};

/// What one frame came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// A text, whole with it.
    Text(String),
    /// Bytes, whole with it.
    Binary(Vec<u8>),
    /// A fragment of a message that is not whole yet.
    Fragment,
    /// To be answered by a pong that carries the same.
    Ping(Vec<u8>),
    /// An answer to a ping of ours, or to none.
    Pong,
    /// The peer begins the closing handshake, perhaps with a status code.
    Close(Option<u16>),
}

/// Why nothing more can be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    /// The peer closed the connection without the closing handshake.
    #[error("the connection has ended")]
    Gone,
    /// It broke.
    #[error(transparent)]
    Broken(#[from] io::Error),
    /// What came is against the protocol.
    #[error("{0}")]
    Violation(&'static str),
    /// A message is larger than may be.
    #[error("a message is too large")]
    TooLarge,
}

/// Reads frames, of messages that have at most so many bytes.
#[derive(Debug)]
pub(crate) struct FrameReader {
    limit: usize,
    /// What was read, up from the first frame that is not dealt with …
    buffer: Vec<u8>,
    /// … which begins here. There is a buffer only while there is something in it.
    at: usize,
    /// The kind of a message that comes in fragments, and those that have come.
    fragments: Option<(Kind, Vec<u8>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Binary,
}

impl FrameReader {
    /// So much is read at a time. Not reserved ahead for what a frame announces: who has announced much
    /// and sends nothing costs nothing.
    const CHUNK: usize = 4_096;

    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, buffer: Vec::new(), at: 0, fragments: None }
    }

    /// The next frame. Nothing is lost when this is not waited for to its end.
    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
    ) -> Poll<Result<Heard, Unreadable>> {
        loop {
            if let Some(heard) = self.take()? {
                return Poll::Ready(Ok(heard));
            }
            ready!(self.poll_fill(cx, from))?;
        }
    }

    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
    ) -> Poll<Result<(), Unreadable>> {
        let mut chunk = [MaybeUninit::uninit(); Self::CHUNK];
        let mut read = ReadBuf::uninit(&mut chunk);
        ready!(Pin::new(from).poll_read(cx, &mut read))?;
        if read.filled().is_empty() {
            return Poll::Ready(Err(Unreadable::Gone));
        }
        self.buffer.drain(..std::mem::take(&mut self.at));
        self.buffer.extend_from_slice(read.filled());
        Poll::Ready(Ok(()))
    }

    /// The next frame of those that were read, if it is there as a whole.
    fn take(&mut self) -> Result<Option<Heard>, Unreadable> {
        let Some(head) = Head::read(&self.buffer[self.at..])? else { return Ok(None) };
        self.check(&head)?;
        let begin = self.at + head.length;
        let end = begin + head.payload;
        let Some(payload) = self.buffer.get_mut(begin..end) else { return Ok(None) };
        unmask(payload, head.mask);
        let payload = payload.to_vec();
        self.at = end;
        if self.at == self.buffer.len() {
            (self.buffer, self.at) = (Vec::new(), 0);
        }
        self.read(&head, payload).map(Some)
    }

    /// Whether such a frame may come now, known before any of its payload is there.
    fn check(&self, head: &Head) -> Result<(), Unreadable> {
        let before = match (head.opcode, &self.fragments) {
            (CONTINUATION, None) => return violation("a continuation of nothing"),
            (CONTINUATION, Some((_, fragments))) => fragments.len(),
            (TEXT | BINARY, Some(_)) => return violation("a message within a message"),
            _ => 0,
        };
        if head.payload > self.limit.saturating_sub(before) {
            return Err(Unreadable::TooLarge);
        }
        Ok(())
    }

    fn read(&mut self, head: &Head, payload: Vec<u8>) -> Result<Heard, Unreadable> {
        match head.opcode {
            PING => Ok(Heard::Ping(payload)),
            PONG => Ok(Heard::Pong),
            CLOSE => status(&payload).map(Heard::Close),
            opcode => {
                let kind = if opcode == TEXT { Kind::Text } else { Kind::Binary };
                self.gather(kind, payload, head.is_final)
            }
        }
    }

    fn gather(
        &mut self,
        kind: Kind,
        payload: Vec<u8>,
        is_final: bool,
    ) -> Result<Heard, Unreadable> {
        let (kind, message) = match self.fragments.take() {
            Some((kind, mut fragments)) => {
                fragments.extend(payload);
                (kind, fragments)
            }
            None => (kind, payload),
        };
        if !is_final {
            self.fragments = Some((kind, message));
            return Ok(Heard::Fragment);
        }
        match kind {
            Kind::Binary => Ok(Heard::Binary(message)),
            Kind::Text => match String::from_utf8(message) {
                Ok(text) => Ok(Heard::Text(text)),
                Err(_) => violation("a text that is not UTF-8"),
            },
        }
    }
}

/// The head of a frame from a client.
pub(super) struct Head {
    pub(super) opcode: u8,
    is_final: bool,
    /// How long it is, and how long what follows it.
    pub(super) length: usize,
    pub(super) payload: usize,
    pub(super) mask: [u8; 4],
}

impl Head {
    /// The most that a control frame carries.
    const CONTROL: usize = 125;

    /// `None` if it is not there as a whole. What is wrong with it is told as early as it shows.
    pub(super) fn read(bytes: &[u8]) -> Result<Option<Self>, Unreadable> {
        let (Some(first), Some(second)) = (bytes.first(), bytes.get(1)) else { return Ok(None) };
        let (opcode, is_final) = (first & 0x0f, first & FINAL != 0);
        if first & 0x70 != 0 {
            return violation("a reserved bit");
        }
        if !matches!(opcode, CONTINUATION | TEXT | BINARY | CLOSE | PING | PONG) {
            return violation("a frame of a reserved kind");
        }
        if second & 0x80 == 0 {
            return violation("a frame that is not masked");
        }
        let is_control = opcode & 0x8 != 0;
        if is_control && !is_final {
            return violation("a control frame in fragments");
        }
        let (extended, payload) = match second & 0x7f {
            126 => (2, number(bytes, 2)),
            127 => (8, number(bytes, 8)),
            short => (0, Some(u64::from(short))),
        };
        let Some(payload) = payload else { return Ok(None) };
        let payload = usize::try_from(payload).map_err(|_| Unreadable::TooLarge)?;
        if is_control && payload > Self::CONTROL {
            return violation("a control frame that is too large");
        }
        let length = 2 + extended + 4;
        let Some(mask) = bytes.get(length - 4..length).and_then(|mask| mask.try_into().ok()) else {
            return Ok(None);
        };
        Ok(Some(Self { opcode, is_final, length, payload, mask }))
    }
}

/// The number of so many bytes behind the first two.
fn number(bytes: &[u8], width: usize) -> Option<u64> {
    let bytes = bytes.get(2..2 + width)?;
    Some(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

pub(super) fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    for part in payload.chunks_mut(mask.len()) {
        for (byte, mask) in part.iter_mut().zip(mask) {
            *byte ^= mask;
        }
    }
}

/// The status code of a closing handshake (section 7.1.5), if there is one.
fn status(payload: &[u8]) -> Result<Option<u16>, Unreadable> {
    match payload {
        [] => Ok(None),
        [high, low, reason @ ..] if std::str::from_utf8(reason).is_ok() => {
            Ok(Some(u16::from_be_bytes([*high, *low])))
        }
        _ => violation("a close that cannot be read"),
    }
}

fn violation<T>(what: &'static str) -> Result<T, Unreadable> {
    Err(Unreadable::Violation(what))
}

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
#[cfg(test)]
pub(super) mod tests;
