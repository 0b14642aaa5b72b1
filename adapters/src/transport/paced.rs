//! A WebSocket that is read no faster than its client may send, where what reads it knows no bounds.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::engine_io::is_event;
use super::frame_reader::{Head, unmask};
use super::frames::TEXT;
use crate::limits::{PerSecond, Rate};

/// A WebSocket's connection of whose frames that are no events only so many are read in a second. Who sends
/// more has the rest wait, and TCP holds it back.
///
/// Events are somebody else's to count, who can answer them.
pub(crate) struct Paced<S> {
    stream: S,
    frames: FrameCount,
    rate: Rate,
    /// So many frames were read and are not counted yet.
    owed: usize,
    pause: Option<Pin<Box<Sleep>>>,
}

impl<S> Paced<S> {
    pub(crate) fn new(stream: S, rate: PerSecond) -> Self {
        let frames = FrameCount::default();
        Self { stream, frames, rate: Rate::of(rate), owed: 0, pause: None }
    }

    /// Ready when all that was read is within the rate.
    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            if self.owed == 0 {
                return Poll::Ready(());
            }
            match self.rate.take() {
                Ok(()) => self.owed -= 1,
                Err(exceeded) => self.pause = Some(Box::pin(sleep(exceeded.wait))),
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_pause(cx));
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let read = &buf.filled()[before..];
        self.owed += self.frames.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Follows what is read of a WebSocket.
#[derive(Debug, Default)]
struct FrameCount {
    /// What there is of a frame's head, and of the beginning of its payload.
    begun: Vec<u8>,
    /// How much of its payload is to come.
    left: usize,
    /// What was read are no frames. Whoever reads them ends it for that.
    is_lost: bool,
}

impl FrameCount {
    /// These bytes were read now: how many frames are known by them to be no events.
    fn advance(&mut self, bytes: &[u8]) -> usize {
        let (mut others, mut at) = (0, 0);
        while at < bytes.len() && !self.is_lost {
            if self.left > 0 {
                let skipped = self.left.min(bytes.len() - at);
                (self.left, at) = (self.left - skipped, at + skipped);
                continue;
            }
            self.begun.push(bytes[at]);
            at += 1;
            others += usize::from(self.is_other());
        }
        others
    }

    /// Whether what has begun is known now, and is no event. Of what is known only the end is waited for.
    fn is_other(&mut self) -> bool {
        /// So many bytes tell an event from everything else.
        const TELLING: usize = 2;
        let head = match Head::read(&self.begun) {
            Ok(Some(head)) => head,
            Ok(None) => return false,
            Err(_) => {
                self.is_lost = true;
                return false;
            }
        };
        let telling = head.payload.min(TELLING);
        if self.begun.len() < head.length + telling {
            return false;
        }
        let payload = &mut self.begun[head.length..];
        unmask(payload, head.mask);
        let is_other = head.opcode != TEXT || !is_event(payload);
        self.left = head.payload - telling;
        self.begun.clear();
        is_other
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::{Duration, Instant};

    use bytes::BufMut as _;
    use proptest::prelude::*;
    use tokio::io::AsyncReadExt as _;

    use super::super::frame_reader::tests::frame;
    use super::super::frames::{BINARY, CONTINUATION, FINAL, PING};
    use super::*;

    const ATTACHED: &str = r#"451-["list",{"_placeholder":true,"num":0}]"#;

    fn wire(length: usize) -> (Vec<u8>, usize) {
        let long = format!(r#"42["list","{}"]"#, "x".repeat(length));
        let events = [frame(FINAL | TEXT, br#"427["a"]"#), frame(FINAL | TEXT, long.as_bytes())];
        let others = [
            frame(FINAL | TEXT, b"3"),
            frame(FINAL | TEXT, b"41"),
            frame(FINAL | TEXT, b""),
            frame(FINAL | PING, b"42"),
            frame(FINAL | BINARY, &[b'4'; 1_000]),
            frame(FINAL | CONTINUATION, b"42"),
        ];
        let attached = frame(FINAL | TEXT, ATTACHED.as_bytes());
        let all = [events.concat(), others.concat(), attached].concat();
        (all, others.len())
    }

    proptest! {
        #[test]
        fn frames_are_counted_however_they_are_cut(
            length in 0_usize..100_000,
            sizes in prop::collection::vec(1_usize..5_000, 1..20),
        ) {
            let (wire, others) = wire(length);
            let (mut count, mut found, mut rest) = (FrameCount::default(), 0, wire.as_slice());
            for size in sizes.iter().cycle() {
                let (piece, after) = rest.split_at((*size).min(rest.len()));
                found += count.advance(piece);
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(found, others);
            prop_assert!(!count.is_lost && count.left == 0 && count.begun.is_empty());
        }
    }

    #[test]
    fn what_is_no_frame_is_not_followed_any_further() {
        let mut count = FrameCount::default();
        assert_eq!(count.advance(b"GET / HTTP/1.1"), 0);
        assert!(count.is_lost);
    }

    #[tokio::test]
    async fn who_sends_too_many_others_has_the_rest_wait_and_events_wait_for_nothing() {
        let rate = NonZeroU32::new(100).unwrap();
        let pings = frame(FINAL | PING, b"").repeat(220);
        let events = frame(FINAL | TEXT, br#"42["a"]"#).repeat(10_000);
        for (wire, least) in [(pings, Duration::from_millis(150)), (events, Duration::ZERO)] {
            let begin = Instant::now();
            let mut read = Vec::new();
            // A chunk is read as a whole, so what is too much in it holds up the next one.
            let mut paced = Paced::new(wire.as_slice(), rate.into());
            while paced.read_buf(&mut (&mut read).limit(64)).await.unwrap() > 0 {}
            assert_eq!(read, wire);
            assert!(begin.elapsed() >= least, "{:?}", begin.elapsed());
        }
    }
}
