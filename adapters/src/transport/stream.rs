//! The bytes of a connection, with TLS or without.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use futures_util::FutureExt as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

use super::connection::Connection;

/// A connection as HTTP and WebSockets are spoken on it.
pub(super) struct Stream {
    layer: Layer,
    /// Boxed, as there is room for it as long as the connection is open, and nearly always nothing.
    put_back: Option<Box<Bytes>>,
}

enum Layer {
    Plain(Connection),
    Tls(Box<TlsStream<Connection>>),
}

impl Stream {
    pub(super) fn plain(connection: Connection) -> Self {
        Self { layer: Layer::Plain(connection), put_back: None }
    }

    pub(super) fn tls(stream: TlsStream<Connection>) -> Self {
        Self { layer: Layer::Tls(Box::new(stream)), put_back: None }
    }

    /// Has this be read once more, before all else.
    pub(super) fn put_back(&mut self, bytes: Bytes) {
        let all = match self.put_back.take() {
            Some(rest) => [bytes, *rest].concat().into(),
            None => bytes,
        };
        self.put_back = Some(all).filter(|all| !all.is_empty()).map(Box::new);
    }

    /// Writes as much of these as is taken without waiting, and answers how many bytes that is. With
    /// TLS they may have to be [flushed](Self::poll_flush).
    pub(super) fn write_now<'a>(
        &mut self,
        pieces: impl Iterator<Item = &'a Bytes>,
    ) -> io::Result<usize> {
        match &mut self.layer {
            Layer::Plain(connection) => connection.write_now(pieces),
            Layer::Tls(stream) => {
                let mut pieces = Some(pieces);
                let write = std::future::poll_fn(|cx| {
                    let pieces = pieces.take().into_iter().flatten();
                    Poll::Ready(write_and_flush(stream, cx, pieces))
                });
                // Out of what a task may do at a time: it is another's that this happens in.
                tokio::task::unconstrained(write).now_or_never().unwrap_or(Ok(0))
            }
        }
    }

    /// Whether it keeps something back that was written to it.
    pub(super) fn wants_flush(&self) -> bool {
        match &self.layer {
            Layer::Plain(_) => false,
            Layer::Tls(stream) => stream.get_ref().1.wants_write(),
        }
    }
}

/// What does not go out now is flushed later, by whoever looks whether it has to be.
fn write_and_flush<'a>(
    stream: &mut TlsStream<Connection>,
    cx: &mut Context<'_>,
    pieces: impl Iterator<Item = &'a Bytes>,
) -> io::Result<usize> {
    let mut written = 0;
    for piece in pieces {
        match Pin::new(&mut *stream).poll_write(cx, piece)? {
            Poll::Ready(count) if count == piece.len() => written += count,
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
        if let Some(bytes) = &mut self.put_back {
            let count = bytes.len().min(buf.remaining());
            buf.put_slice(&bytes[..count]);
            bytes.advance(count);
            self.put_back.take_if(|rest| rest.is_empty());
            return Poll::Ready(Ok(()));
        }
        match &mut self.layer {
            Layer::Plain(connection) => Pin::new(connection).poll_read(cx, buf),
            Layer::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.layer {
            Layer::Plain(connection) => Pin::new(connection).poll_write(cx, bytes),
            Layer::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.layer {
            Layer::Plain(connection) => Pin::new(connection).poll_write_vectored(cx, slices),
            Layer::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.layer {
            Layer::Plain(connection) => connection.is_write_vectored(),
            Layer::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.layer {
            Layer::Plain(connection) => Pin::new(connection).poll_flush(cx),
            Layer::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.layer {
            Layer::Plain(connection) => Pin::new(connection).poll_shutdown(cx),
            Layer::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixStream;

    use super::super::admission::{Admission, ConnectionLimits};
    use super::super::connection::Socket;
    use super::*;

    fn connected() -> (Stream, UnixStream) {
        let (server, client) = UnixStream::pair().unwrap();
        let place = Admission::new(ConnectionLimits::default()).connection(None).unwrap();
        let address = ([127, 0, 0, 1], 0).into();
        (Stream::plain(Connection::new(Socket::Unix(server), address, place).0), client)
    }

    #[tokio::test]
    async fn what_is_put_back_is_read_first_and_not_kept() {
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
    async fn nothing_put_back_is_not_the_end() {
        let (mut stream, mut client) = connected();
        stream.put_back(Bytes::new());
        client.write_all(b"a").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'a');
    }
}
