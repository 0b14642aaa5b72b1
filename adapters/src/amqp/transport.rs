use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_rs::traits::Reactor;
use async_rs::util::{DummyIO, RuntimeParts};
use async_rs::{Runtime, Tokio};
use futures_util::Stream;
use futures_util::io::{AsyncRead, AsyncWrite};
use lapin::tcp::{AMQPUriTcpExt, AsyncTcpStream, TLSConfig};
use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties};
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};

use super::link::{Lifetime, Link};
use super::mending::{HEADER, METHOD, mend};

/// Connects as lapin does by itself, by TLS where the URL says so, but for what is [mended](mend) on
/// its way in, and for how it ends: with `lifeline`, whatever the broker does. lapin's thread for a
/// connection waits for a broker that has stopped answering for as long as the connection is open.
pub(super) async fn connect(
    uri: AMQPUri,
    properties: ConnectionProperties,
    lifeline: CancellationToken,
) -> lapin::Result<Link> {
    let tokio = Tokio::current();
    let plain = Runtime::new(tokio.clone());
    let mending = Runtime::new(RuntimeParts::new(tokio.clone(), Mending(tokio)));
    let (lifetime, over) = Lifetime::begin();
    let connect = async move |uri: AMQPUri, _| {
        let connecting = uri.connect_with_config_async(TLSConfig::default(), &plain);
        let connected = lifeline.run_until_cancelled(connecting).await;
        let stream = connected.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))?;
        Ok(AsyncTcpStream::Plain(Mended::new(stream, lifeline.clone(), over.clone())))
    };
    let connecting = Connection::connector(uri, mending, connect, properties);
    let connection = lifetime.answered(connecting).await?;
    Ok(Link::new(connection, lifetime))
}

type TokioStream = <Tokio as Reactor>::TcpStream;

/// Tokio's I/O, as lapin wants it: its streams are mended.
#[derive(Debug, Clone)]
struct Mending(Tokio);

impl Reactor for Mending {
    type TcpStream = Mended<AsyncTcpStream<TokioStream>>;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H>(
        &self,
        _: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        Err::<DummyIO, _>(io::ErrorKind::Unsupported.into())
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, period: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(period)
    }

    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        let connecting = self.0.tcp_connect_addr(address);
        let (lifeline, over) = (CancellationToken::new(), CancellationToken::new());
        async move { Ok(Mended::new(AsyncTcpStream::Plain(connecting.await?), lifeline, over)) }
    }
}

/// A stream from a broker whose frames are mended. Methods and properties are handed out frame by
/// frame, since a text may lie across two reads; bodies, which are most of it, as they come.
struct Mended<S> {
    stream: S,
    lifeline: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Let go of when the broker's side has ended; at the latest it goes with this.
    alive: Option<DropGuard>,
    buffer: Vec<u8>,
    /// Up to here it was handed out…
    begin: usize,
    /// …up to here it can be…
    ready: usize,
    /// …and up to here it was read.
    end: usize,
    /// How much of the frame that `ready` lies in is handed out as it comes.
    body: usize,
}

impl<S> Mended<S> {
    const ROOM: usize = 64 * 1024;
    /// Type, channel and size; the byte that ends a frame.
    const HEAD: usize = 7;
    const TAIL: usize = 1;
    /// No frame with a method or properties is larger, whatever was agreed on.
    const LARGEST: usize = 1 << 20;

    fn new(stream: S, lifeline: CancellationToken, over: CancellationToken) -> Self {
        Self {
            stream,
            lifeline: Box::pin(lifeline.cancelled_owned()),
            alive: Some(over.drop_guard()),
            buffer: vec![0; Self::ROOM],
            begin: 0,
            ready: 0,
            end: 0,
            body: 0,
        }
    }

    /// Mends what is complete of what was read. Answers how many bytes the next frame takes, if it is
    /// one that must be complete and is not.
    fn advance(&mut self) -> usize {
        loop {
            let passed = self.body.min(self.end - self.ready);
            self.ready += passed;
            self.body -= passed;
            let rest = &mut self.buffer[self.ready..self.end];
            if self.body > 0 || rest.is_empty() {
                return 0;
            }
            let [kind, _, _, size @ ..] = rest else { return Self::HEAD };
            let Some((size, _)) = size.split_first_chunk() else { return Self::HEAD };
            let size = usize::try_from(u32::from_be_bytes(*size)).unwrap_or(usize::MAX);
            let whole = size.saturating_add(Self::HEAD + Self::TAIL);
            let kind = *kind;
            if !matches!(kind, METHOD | HEADER) || size > Self::LARGEST {
                self.body = whole;
            } else if rest.len() < whole {
                return whole;
            } else {
                mend(kind, &mut rest[Self::HEAD..Self::HEAD + size]);
                self.ready += whole;
            }
        }
    }

    /// Makes room to read more of a frame that takes so many bytes, once all that is ready is handed
    /// out.
    fn make_room(&mut self, whole: usize) {
        self.buffer.copy_within(self.begin..self.end, 0);
        self.end -= self.begin;
        (self.begin, self.ready) = (0, 0);
        if self.buffer.len() < whole {
            self.buffer.resize(whole, 0);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Mended<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        while this.begin == this.ready {
            let whole = this.advance();
            if this.begin < this.ready {
                break;
            }
            this.make_room(whole);
            let room = &mut this.buffer[this.end..];
            let Poll::Ready(read) = Pin::new(&mut this.stream).poll_read(context, room) else {
                ready!(this.lifeline.as_mut().poll(context));
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            };
            match read {
                Ok(read) if read > 0 => this.end += read,
                end => {
                    this.alive = None;
                    return Poll::Ready(end);
                }
            }
        }
        let handed_out = out.len().min(this.ready - this.begin);
        out[..handed_out].copy_from_slice(&this.buffer[this.begin..this.begin + handed_out]);
        this.begin += handed_out;
        Poll::Ready(Ok(handed_out))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Mended<S> {
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
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&[kind, 0, 1][..], &size, payload, &[0xce]].concat()
    }

    fn deliver(routing_key: &[u8]) -> Vec<u8> {
        let length = [u8::try_from(routing_key.len()).unwrap()];
        let method = [0, 60, 0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0];
        frame(METHOD, &[&method[..], &length, routing_key].concat())
    }

    fn mended<S>(stream: S) -> Mended<S> {
        Mended::new(stream, CancellationToken::new(), CancellationToken::new())
    }

    /// Hands out so many bytes at a time.
    struct Dribble(Cursor<Vec<u8>>, usize);

    impl AsyncRead for Dribble {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            out: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            let most = out.len().min(self.1);
            Pin::new(&mut self.0).poll_read(context, &mut out[..most])
        }
    }

    #[tokio::test]
    async fn frames_are_mended_however_they_are_cut() {
        let body = frame(3, &vec![0xff; 100_000]);
        let largest = frame(METHOD, &[&[0, 60, 0, 60, 0][..], &vec![0; 100_000]].concat());
        let sent = [deliver(b"\xff"), body.clone(), largest.clone(), frame(8, b""), deliver(b"a")];
        let expected = [deliver(b"?"), body, largest, frame(8, b""), deliver(b"a")].concat();
        for piece in [1, 6, 7, 8, 100, 65_536, 1_000_000] {
            let mut stream = mended(Dribble(Cursor::new(sent.concat()), piece));
            let mut read = vec![];
            stream.read_to_end(&mut read).await.unwrap();
            assert!(read == expected, "in pieces of {piece}");
        }
    }

    #[tokio::test]
    async fn what_is_no_amqp_is_handed_on_as_it_is() {
        for sent in
            [b"AMQP\x01\x01\x00\x0aand more".to_vec(), b"HTTP/1.1 400 Bad Request\r\n".to_vec()]
        {
            let mut stream = mended(Cursor::new(sent.clone()));
            let mut read = vec![];
            stream.read_to_end(&mut read).await.unwrap();
            assert_eq!(read, sent);
        }
    }

    /// A method of the connection itself, on channel 0.
    fn method(payload: &[u8]) -> Vec<u8> {
        let mut frame = frame(METHOD, payload);
        frame[2] = 0;
        frame
    }

    /// Takes a connection, says these in turn, each when all of the client's answer to the one before is
    /// there, and hangs up.
    async fn hang_up_after(listener: &TcpListener, said: &[(Vec<u8>, usize)]) {
        let (mut client, _) = listener.accept().await.unwrap();
        client.read_exact(&mut [0; 8]).await.unwrap();
        for (said, answers) in said {
            client.write_all(said).await.unwrap();
            // All of it: what is unread would turn the end into a reset.
            for _ in 0..*answers {
                let mut head = [0; 7];
                client.read_exact(&mut head).await.unwrap();
                let size = usize::from(head[5]) << 8 | usize::from(head[6]);
                client.read_exact(&mut vec![0; size + 1]).await.unwrap();
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_broker_that_hangs_up_during_the_sign_in_is_not_waited_for() {
        // connection.start: version 0-9, nothing about the server, how to sign in, in which language.
        let start = method(b"\0\x0a\0\x0a\0\x09\0\0\0\0\0\0\0\x05PLAIN\0\0\0\x05en_US");
        // connection.tune: channels, frames of 128 KiB, heartbeats. Its answer is not waited for.
        let tune = method(b"\0\x0a\0\x1e\x07\xff\0\x02\0\0\0\x0a");
        let said = [(start, 1), (tune, 0)];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for words in 0..=said.len() {
            let uri = format!("amqp://127.0.0.1:{port}").parse().unwrap();
            let connecting =
                connect(uri, ConnectionProperties::default(), CancellationToken::new());
            let connecting = tokio::time::timeout(Duration::from_secs(30), connecting);
            let (connected, ()) =
                tokio::join!(connecting, hang_up_after(&listener, &said[..words]));
            assert!(connected.expect("it comes to an end").is_err());
        }
    }
}
