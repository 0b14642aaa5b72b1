use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};

use super::frame_sanitizer::{HEADER, METHOD, sanitize};

/// The stream of a broker connection. It makes the frames from the broker safe for lapin to parse; see
/// [`frame_sanitizer`](super::frame_sanitizer).
///
/// Method and content header frames are held back until they are complete, because a string may span two
/// reads. Body frames, most of the traffic, are passed on as they arrive. What lapin sends is not changed.
pub(super) struct SanitizedStream<S> {
    stream: S,
    /// Completes when reads must fail.
    aborted: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Its drop cancels the token `ended` of [`new`](Self::new).
    ended_guard: Option<DropGuard>,
    buffer: Vec<u8>,
    /// `buffer[begin..ready]` can be passed on to lapin.
    begin: usize,
    ready: usize,
    /// `buffer[ready..end]` is received and not examined yet.
    end: usize,
    /// The remaining bytes of the current frame if it is passed on as it arrives; otherwise 0.
    pass_through: usize,
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

    /// After `abort` is cancelled, reads return the data that is available and then fail. `ended` is
    /// cancelled when the broker closes its side, reading from it fails or the stream is dropped.
    pub(super) fn new(stream: S, abort: CancellationToken, ended: CancellationToken) -> Self {
        Self {
            stream,
            aborted: Box::pin(abort.cancelled_owned()),
            ended_guard: Some(ended.drop_guard()),
            buffer: vec![0; Self::INITIAL_BUFFER],
            begin: 0,
            ready: 0,
            end: 0,
            pass_through: 0,
        }
    }

    /// Sanitizes the complete frames in the buffer and marks them as ready. Returns the buffer size that the
    /// next frame needs; 0 for no minimum.
    fn sanitize_buffered(&mut self) -> usize {
        loop {
            let passed_on = self.pass_through.min(self.end - self.ready);
            self.ready += passed_on;
            self.pass_through -= passed_on;
            let rest = &mut self.buffer[self.ready..self.end];
            if self.pass_through > 0 || rest.is_empty() {
                return 0;
            }
            let [frame_type, _, _, size @ ..] = rest else { return Self::FRAME_HEAD };
            let Some((size, _)) = size.split_first_chunk() else { return Self::FRAME_HEAD };
            let size = usize::try_from(u32::from_be_bytes(*size)).unwrap_or(usize::MAX);
            let frame_size = size.saturating_add(Self::FRAME_HEAD + Self::FRAME_TAIL);
            let frame_type = *frame_type;
            if !matches!(frame_type, METHOD | HEADER) || size > Self::MAX_SANITIZED_PAYLOAD {
                self.pass_through = frame_size;
            } else if rest.len() < frame_size {
                return frame_size;
            } else {
                sanitize(frame_type, &mut rest[Self::FRAME_HEAD..Self::FRAME_HEAD + size]);
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
}

impl<S: AsyncRead + Unpin> AsyncRead for SanitizedStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // Until there is something to pass on.
        while this.begin == this.ready {
            let needed = this.sanitize_buffered();
            if this.begin < this.ready {
                break;
            }
            this.make_room(needed);
            let room = &mut this.buffer[this.end..];
            let Poll::Ready(read) = Pin::new(&mut this.stream).poll_read(context, room) else {
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
        SanitizedStream::new(stream, CancellationToken::new(), CancellationToken::new())
    }

    /// A stream whose reads return at most this many bytes.
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
            assert!(read == expected, "in reads of {size}");
        }
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
