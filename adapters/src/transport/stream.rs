//! The bytes of a connection, with TLS or without.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use futures_util::FutureExt as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use super::head_timeout::HeadTimeout;
use super::peer::ConnectionPermits;

/// An accepted socket, before TLS.
pub(super) type AcceptedSocket = Either<TcpStream, UnixStream>;

/// Waits until data has arrived or the peer has closed its side.
pub(super) async fn readable(socket: &AcceptedSocket) -> io::Result<()> {
    match socket {
        Either::Left(tcp) => tcp.readable().await,
        Either::Right(unix) => unix.readable().await,
    }
}

/// A connection that carries HTTP or a WebSocket.
pub(super) struct Stream {
    layer: Either<AcceptedSocket, Box<TlsStream<AcceptedSocket>>>,
    /// Bytes that the next reads return first. Boxed to keep the stream small: it lives as long as the
    /// connection, and this is nearly always `None`.
    put_back: Option<Box<Bytes>>,
    /// Set only while the connection carries HTTP.
    head_timeout: Option<Box<HeadTimeout>>,
    /// Held until the connection is closed.
    _permits: Arc<ConnectionPermits>,
}

impl Stream {
    pub(super) fn plain(socket: AcceptedSocket, permits: Arc<ConnectionPermits>) -> Self {
        Self { layer: Either::Left(socket), put_back: None, head_timeout: None, _permits: permits }
    }

    pub(super) fn tls(stream: TlsStream<AcceptedSocket>, permits: Arc<ConnectionPermits>) -> Self {
        let layer = Either::Right(Box::new(stream));
        Self { layer, put_back: None, head_timeout: None, _permits: permits }
    }

    pub(super) fn set_head_timeout(&mut self, timeout: Option<HeadTimeout>) {
        self.head_timeout = timeout.map(Box::new);
    }

    /// Makes the next reads return these bytes first.
    pub(super) fn put_back(&mut self, bytes: Bytes) {
        let all = match self.put_back.take() {
            Some(earlier) => [bytes, *earlier].concat().into(),
            None => bytes,
        };
        self.put_back = Some(all).filter(|all| !all.is_empty()).map(Box::new);
    }

    /// Writes as much as is accepted without waiting, and returns the number of bytes. With TLS a
    /// [flush](Self::poll_flush) may be needed afterwards; see [`wants_flush`](Self::wants_flush).
    pub(super) fn write_now<'a>(
        &mut self,
        frames: impl Iterator<Item = &'a Bytes>,
    ) -> io::Result<usize> {
        match &mut self.layer {
            Either::Left(socket) => write_to_socket(socket, frames),
            Either::Right(stream) => {
                let mut frames = Some(frames);
                let write = std::future::poll_fn(|cx| {
                    let frames = frames.take().into_iter().flatten();
                    Poll::Ready(write_and_flush(stream, cx, frames))
                });
                // Without Tokio's cooperative budget: any task may send to this connection, and the budget of that
                // task must not limit the write.
                tokio::task::unconstrained(write).now_or_never().unwrap_or(Ok(0))
            }
        }
    }

    /// Records whether the client reads responses too slowly. The head timeout shares this state with the
    /// connection's task.
    fn record_write(&self, written: &Poll<io::Result<usize>>) {
        if let Some(timeout) = &self.head_timeout {
            timeout.record_write(written.is_pending());
        }
    }

    /// Whether TLS still buffers written data.
    pub(super) fn wants_flush(&self) -> bool {
        match &self.layer {
            Either::Left(_) => false,
            Either::Right(stream) => stream.get_ref().1.wants_write(),
        }
    }
}

fn write_to_socket<'a>(
    socket: &AcceptedSocket,
    frames: impl Iterator<Item = &'a Bytes>,
) -> io::Result<usize> {
    /// A delivery rarely has more frames. This call does not write the frames beyond this number.
    const MAX_SLICES: usize = 8;
    let mut slices = [io::IoSlice::new(&[]); MAX_SLICES];
    let mut count = 0;
    for (slice, frame) in slices.iter_mut().zip(frames) {
        *slice = io::IoSlice::new(frame);
        count += 1;
    }
    let written = match socket {
        Either::Left(tcp) => tcp.try_write_vectored(&slices[..count]),
        Either::Right(unix) => unix.try_write_vectored(&slices[..count]),
    };
    match written {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        done => done,
    }
}

/// Writes and flushes as much as possible without waiting. The caller flushes the remaining data later if
/// [`Stream::wants_flush`] says so.
fn write_and_flush<'a>(
    stream: &mut TlsStream<AcceptedSocket>,
    cx: &mut Context<'_>,
    frames: impl Iterator<Item = &'a Bytes>,
) -> io::Result<usize> {
    let mut written = 0;
    for frame in frames {
        match Pin::new(&mut *stream).poll_write(cx, frame)? {
            Poll::Ready(count) if count == frame.len() => written += count,
            Poll::Ready(count) => return Ok(written + count),
            Poll::Pending => break,
        }
    }
    match Pin::new(stream).poll_flush(cx) {
        Poll::Ready(Err(error)) => Err(error),
        _ => Ok(written),
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(timeout) = &mut self.head_timeout {
            timeout.check(cx)?;
        }
        let before = buf.filled().len();
        if let Some(bytes) = &mut self.put_back {
            let count = bytes.len().min(buf.remaining());
            buf.put_slice(&bytes[..count]);
            bytes.advance(count);
            self.put_back.take_if(|bytes| bytes.is_empty());
        } else {
            ready!(Pin::new(&mut self.layer).poll_read(cx, buf))?;
        }
        if buf.filled().len() > before
            && let Some(timeout) = &mut self.head_timeout
        {
            timeout.bytes_read();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.layer).poll_write(cx, bytes);
        self.record_write(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.layer).poll_write_vectored(cx, slices);
        self.record_write(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.layer.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.layer).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.layer).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::super::connection_limiter::{ConnectionLimiter, ConnectionLimits};
    use super::*;

    fn connected() -> (Stream, UnixStream) {
        let (server, client) = UnixStream::pair().unwrap();
        let limiter = ConnectionLimiter::new(ConnectionLimits::default());
        let permits = ConnectionPermits::new(limiter.acquire_connection(None).unwrap());
        (Stream::plain(Either::Right(server), permits), client)
    }

    #[tokio::test]
    async fn bytes_that_were_put_back_are_read_first_and_then_dropped() {
        let (mut stream, mut client) = connected();
        client.write_all(b"e").await.unwrap();
        stream.put_back(Bytes::from_static(b"bcd"));
        stream.put_back(Bytes::from_static(b"a"));
        let mut read = [0; 3];
        stream.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"abc");
        stream.put_back(Bytes::from_static(b"c"));
        let mut read = [0; 3];
        stream.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"cde");
        assert!(stream.put_back.is_none());
    }

    #[tokio::test]
    async fn putting_back_nothing_does_not_end_the_stream() {
        let (mut stream, mut client) = connected();
        stream.put_back(Bytes::new());
        client.write_all(b"a").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'a');
    }
}
