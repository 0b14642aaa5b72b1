use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};

use super::byte_budget::ByteBudget;
use super::frame_sanitizer::{HEADER, METHOD, sanitize};

/// The stream of a broker connection. It makes the frames from the broker safe for lapin to parse; see
/// [`frame_sanitizer`](super::frame_sanitizer).
///
/// Method and content header frames are held back until they are complete, because a string may span two
/// reads. Body frames, most of the traffic, are passed on as they arrive. Data that lapin writes is not changed.
///
/// While the connection's [`ByteBudget`] is exhausted, the stream stops before the next `basic.deliver`. Meanwhile
/// it generates heartbeats for lapin, which would otherwise consider the broker dead.
pub(super) struct SanitizedStream<S> {
    stream: S,
    /// Completes when the token `abort` of [`new`](Self::new) is cancelled.
    aborted: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Cancels the token `ended` of [`new`](Self::new) when it is dropped.
    ended_guard: Option<DropGuard>,
    buffer: Vec<u8>,
    /// `buffer[begin..ready]` can be passed on to lapin.
    begin: usize,
    ready: usize,
    /// `buffer[ready..end]` is received and not examined yet.
    end: usize,
    /// How many bytes of the current frame are still to be passed on without being examined.
    pass_through: usize,
    budget: Arc<ByteBudget>,
    /// When lapin gets the next generated heartbeat while the stream is stopped.
    heartbeat_due: Pin<Box<Sleep>>,
}

/// Why [`SanitizedStream::sanitize_buffered`] has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stopped {
    /// The next frame is incomplete and needs a buffer of this many bytes; 0 if any size is sufficient.
    Incomplete(usize),
    /// The next frame begins a message, and the budget is exhausted.
    OverBudget,
}

impl<S> SanitizedStream<S> {
    const INITIAL_BUFFER: usize = 64 * 1024;
    /// The bytes before the payload: type, channel and size.
    const FRAME_HEAD: usize = 7;
    /// The byte after the payload: the frame end.
    const FRAME_TAIL: usize = 1;
    /// Frames with a larger payload are passed on without being sanitized, so that the buffer stays bounded.
    /// The broker sends such frames only if the URL sets a larger `frame_max`: Belfry requests 128 KiB.
    const MAX_SANITIZED_PAYLOAD: usize = 1 << 20;
    /// The type of a frame with a part of a message's body.
    const BODY: u8 = 3;
    /// The first bytes of the payload of `basic.deliver`: its class and method, 60 and 60.
    const DELIVER: [u8; 4] = [0, 60, 0, 60];
    /// A heartbeat: type 8, channel 0, no payload, the frame end.
    const HEARTBEAT: [u8; 8] = [8, 0, 0, 0, 0, 0, 0, 0xce];
    /// The interval of generated heartbeats: less than half of the shortest interval in AMQP, one second.
    const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(400);

    /// After `abort` is cancelled, reads return the data that is available and then fail. `ended` is
    /// cancelled when the broker closes its side, reading from it fails or the stream is dropped.
    ///
    /// # Panics
    /// Outside a Tokio runtime, because the stream has a timer.
    pub(super) fn new(
        stream: S,
        abort: CancellationToken,
        ended: CancellationToken,
        budget: Arc<ByteBudget>,
    ) -> Self {
        Self {
            stream,
            aborted: Box::pin(abort.cancelled_owned()),
            ended_guard: Some(ended.drop_guard()),
            buffer: vec![0; Self::INITIAL_BUFFER],
            begin: 0,
            ready: 0,
            end: 0,
            pass_through: 0,
            budget,
            heartbeat_due: Box::pin(sleep(Self::HEARTBEAT_INTERVAL)),
        }
    }

    /// Sanitizes the complete frames in the buffer and marks them as ready. Returns why it stopped.
    fn sanitize_buffered(&mut self) -> Stopped {
        let incomplete_head = Stopped::Incomplete(Self::FRAME_HEAD);
        loop {
            let passed_on = self.pass_through.min(self.end - self.ready);
            self.ready += passed_on;
            self.pass_through -= passed_on;
            let unexamined = &mut self.buffer[self.ready..self.end];
            if self.pass_through > 0 || unexamined.is_empty() {
                return Stopped::Incomplete(0);
            }
            let [frame_type, _, _, size @ ..] = unexamined else { return incomplete_head };
            let Some((size, _)) = size.split_first_chunk() else { return incomplete_head };
            let payload_size = usize::try_from(u32::from_be_bytes(*size)).unwrap_or(usize::MAX);
            let frame_size = payload_size.saturating_add(Self::FRAME_HEAD + Self::FRAME_TAIL);
            let frame_type = *frame_type;
            if !matches!(frame_type, METHOD | HEADER) || payload_size > Self::MAX_SANITIZED_PAYLOAD
            {
                if frame_type == Self::BODY {
                    self.budget.receive(payload_size);
                }
                self.pass_through = frame_size;
            } else if unexamined.len() < frame_size {
                return Stopped::Incomplete(frame_size);
            } else if frame_type == METHOD
                && unexamined[Self::FRAME_HEAD..].starts_with(&Self::DELIVER)
                && !self.budget.is_available()
            {
                return Stopped::OverBudget;
            } else {
                let payload = &mut unexamined[Self::FRAME_HEAD..Self::FRAME_HEAD + payload_size];
                sanitize(frame_type, payload);
                self.ready += frame_size;
            }
        }
    }

    /// Moves the unexamined bytes to the front and grows the buffer to at least `needed` bytes. All ready
    /// bytes must have been passed on.
    fn make_room(&mut self, needed: usize) {
        self.buffer.copy_within(self.begin..self.end, 0);
        self.end -= self.begin;
        (self.begin, self.ready) = (0, 0);
        if self.buffer.len() < needed {
            self.buffer.resize(needed, 0);
        }
    }

    /// Waits until the budget allows the next message, and returns `None`. If a heartbeat is due before that,
    /// writes it to `out` and returns its length.
    fn poll_budget(
        &mut self,
        context: &mut Context<'_>,
        out: &mut [u8],
    ) -> Poll<io::Result<Option<usize>>> {
        if self.budget.poll_available(context).is_ready() {
            return Poll::Ready(Ok(None));
        }
        if self.aborted.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        // If the timer elapsed before the stream stopped, the first heartbeat is due at once.
        while self.heartbeat_due.as_mut().poll(context).is_ready() {
            let next = Instant::now() + Self::HEARTBEAT_INTERVAL;
            self.heartbeat_due.as_mut().reset(next);
            // A heartbeat that does not fit is skipped.
            if let Some(out) = out.first_chunk_mut() {
                *out = Self::HEARTBEAT;
                return Poll::Ready(Ok(Some(out.len())));
            }
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for SanitizedStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // Repeat until there is data to pass on.
        while this.begin == this.ready {
            let stopped = this.sanitize_buffered();
            if this.begin < this.ready {
                break;
            }
            let needed = match stopped {
                Stopped::Incomplete(needed) => needed,
                Stopped::OverBudget => match ready!(this.poll_budget(context, out))? {
                    Some(heartbeat) => return Poll::Ready(Ok(heartbeat)),
                    None => continue,
                },
            };
            this.make_room(needed);
            let free = &mut this.buffer[this.end..];
            let Poll::Ready(read) = Pin::new(&mut this.stream).poll_read(context, free) else {
                ready!(this.aborted.as_mut().poll(context));
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            };
            match read {
                Ok(read) if read > 0 => this.end += read,
                end_or_error => {
                    this.ended_guard = None;
                    return Poll::Ready(end_or_error);
                }
            }
        }
        let passed_on = out.len().min(this.ready - this.begin);
        out[..passed_on].copy_from_slice(&this.buffer[this.begin..this.begin + passed_on]);
        this.begin += passed_on;
        Poll::Ready(Ok(passed_on))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for SanitizedStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_close(context)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::io::{AsyncReadExt as _, Cursor};

    use super::*;

    const BODY: u8 = 3;
    const HEARTBEAT: u8 = 8;

    fn frame(frame_type: u8, payload: &[u8]) -> Vec<u8> {
        let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&[frame_type, 0, 1][..], &size, payload, &[0xce]].concat()
    }

    /// A `basic.deliver` method with this routing key.
    fn deliver(routing_key: &[u8]) -> Vec<u8> {
        let length = [u8::try_from(routing_key.len()).unwrap()];
        let method = [0, 60, 0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0];
        frame(METHOD, &[&method[..], &length, routing_key].concat())
    }

    fn sanitized<S>(stream: S) -> SanitizedStream<S> {
        with_budget(stream, usize::MAX)
    }

    fn with_budget<S>(stream: S, limit: usize) -> SanitizedStream<S> {
        let token = CancellationToken::new;
        SanitizedStream::new(stream, token(), token(), ByteBudget::new(limit))
    }

    /// A stream, and the maximum number of bytes that one read returns.
    struct SmallReads(Cursor<Vec<u8>>, usize);

    impl AsyncRead for SmallReads {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            out: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            let max = out.len().min(self.1);
            Pin::new(&mut self.0).poll_read(context, &mut out[..max])
        }
    }

    #[tokio::test]
    async fn frames_are_sanitized_however_reads_split_them() {
        let body = frame(BODY, &vec![0xff; 100_000]);
        let largest = frame(METHOD, &[&[0, 60, 0, 60, 0][..], &vec![0; 100_000]].concat());
        let heartbeat = frame(HEARTBEAT, b"");
        let sent =
            [deliver(b"\xff"), body.clone(), largest.clone(), heartbeat.clone(), deliver(b"a")];
        let expected = [deliver(b"?"), body, largest, heartbeat, deliver(b"a")].concat();
        for size in [1, 6, 7, 8, 100, 65_536, 1_000_000] {
            let mut stream = sanitized(SmallReads(Cursor::new(sent.concat()), size));
            let mut read = vec![];
            stream.read_to_end(&mut read).await.unwrap();
            assert!(read == expected, "wrong frames after reads of {size} bytes");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn exhausted_budget_stops_the_stream_before_the_next_message() {
        let body = frame(BODY, &[0; 100]);
        let [first, second] = [b"1", b"2"].map(|key| deliver(key));
        let sent = [&first[..], &body, &body, &second, &body].concat();
        let mut stream = with_budget(Cursor::new(sent), 150);
        let first_message = [&first[..], &body, &body].concat();
        let mut read = vec![0; first_message.len()];
        stream.read_exact(&mut read).await.unwrap();
        assert!(read == first_message, "a message is passed on completely");
        // Then the stream stops, and lapin gets heartbeats.
        for _ in 0..3 {
            let mut heartbeat = [0; 8];
            stream.read_exact(&mut heartbeat).await.unwrap();
            assert_eq!(heartbeat, [8, 0, 0, 0, 0, 0, 0, 0xce]);
        }
        let handled = lapin::message::Delivery::mock(1, "".into(), "".into(), false, vec![0; 200]);
        drop(stream.budget.hold(handled));
        let mut rest = vec![];
        stream.read_to_end(&mut rest).await.unwrap();
        assert!(rest == [second, body].concat());
    }

    #[tokio::test]
    async fn other_protocols_are_passed_on_unchanged() {
        for sent in
            [b"AMQP\x01\x01\x00\x0aand more".to_vec(), b"HTTP/1.1 400 Bad Request\r\n".to_vec()]
        {
            let mut stream = sanitized(Cursor::new(sent.clone()));
            let mut read = vec![];
            stream.read_to_end(&mut read).await.unwrap();
            assert_eq!(read, sent);
        }
    }
}
