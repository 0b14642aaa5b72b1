//! The bytes of a connection, with TLS or without.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

use super::connection::Connection;

/// A connection as HTTP and WebSockets are spoken on it.
pub(super) enum Stream {
    Plain(Connection),
    Tls(Box<TlsStream<Connection>>),
}

impl Stream {
    /// Writes as much of these as is taken without waiting, and answers how many bytes that is. With
    /// TLS they may have to be [flushed](Self::poll_flush).
    pub(super) fn write_now<'a>(
        &mut self,
        pieces: impl Iterator<Item = &'a Bytes>,
    ) -> io::Result<usize> {
        match self {
            Self::Plain(connection) => connection.write_now(pieces),
            Self::Tls(stream) => {
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
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => stream.get_ref().1.wants_write(),
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
        match &mut *self {
            Self::Plain(connection) => Pin::new(connection).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(connection) => Pin::new(connection).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(connection) => Pin::new(connection).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(connection) => connection.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(connection) => Pin::new(connection).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(connection) => Pin::new(connection).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
