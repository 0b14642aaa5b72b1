use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_rs::traits::Reactor;
use async_rs::util::{DummyIO, RuntimeParts};
use async_rs::{Runtime, Tokio};
use futures_util::Stream;
use futures_util::io::{AsyncRead, AsyncWrite};
use lapin::tcp::{AMQPUriTcpExt, AsyncTcpStream};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Connection, ConnectionProperties};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::broker_connection::{BrokerConnection, ConnectionLifetime};
use super::byte_budget::ByteBudget;
use super::sanitized_stream::SanitizedStream;
use super::tls::AmqpTlsFiles;

/// Connects to the broker as lapin itself does, but through a [`SanitizedStream`], which makes the broker's frames
/// safe for lapin to parse.
///
/// Cancelling `abort` ends the connection even if the broker does not respond. Without it, lapin's thread for the
/// connection would wait for an unresponsive broker as long as the TCP connection is open.
pub(super) async fn connect(
    uri: AMQPUri,
    properties: ConnectionProperties,
    tls: AmqpTlsFiles,
    abort: CancellationToken,
    budget: Arc<ByteBudget>,
) -> lapin::Result<BrokerConnection> {
    let tokio = Tokio::current();
    let plain = Runtime::new(tokio.clone());
    let sanitizing = Runtime::new(RuntimeParts::new(tokio.clone(), SanitizingReactor(tokio)));
    let (lifetime, ended) = ConnectionLifetime::begin();
    // lapin may connect on a thread outside the runtime, where `Handle::current` panics.
    let handle = Handle::current();
    let stream_budget = budget.clone();
    let connect = async move |uri: AMQPUri, _| {
        let connecting = open_stream(uri, &tls, &plain, &handle);
        let connected = abort.run_until_cancelled(connecting).await;
        let stream = connected.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))?;
        // The stream has a timer, which must be created in the runtime.
        let _entered = handle.enter();
        let (abort, ended, budget) = (abort.clone(), ended.clone(), stream_budget.clone());
        // `Plain` also with TLS: the TLS session is inside `stream`.
        Ok(AsyncTcpStream::Plain(SanitizedStream::new(stream, abort, ended, budget)))
    };
    let connecting = Connection::connector(uri, sanitizing, connect, properties);
    let connection = lifetime.unless_ended(connecting).await?;
    Ok(BrokerConnection::new(connection, lifetime, budget))
}

/// Opens a TCP connection, with TLS for an `amqps://` URI.
async fn open_stream(
    mut uri: AMQPUri,
    tls: &AmqpTlsFiles,
    runtime: &Runtime<Tokio>,
    handle: &Handle,
) -> io::Result<AsyncTcpStream<TokioStream>> {
    // lapin must not add TLS itself: it would always trust the certificate authorities of the system.
    let scheme = std::mem::replace(&mut uri.scheme, AMQPScheme::AMQP);
    let host = uri.authority.host.clone();
    let stream = uri.connect_async(runtime).await?;
    match scheme {
        AMQPScheme::AMQP => Ok(stream),
        AMQPScheme::AMQPS => {
            let files = tls.clone();
            let connector = handle.spawn_blocking(move || files.connector()).await?;
            stream.into_rustls(&connector.map_err(io::Error::other)?, &host).await
        }
    }
}

type TokioStream = <Tokio as Reactor>::TcpStream;

/// Tokio's timers for lapin, and the type of its streams.
#[derive(Debug, Clone)]
struct SanitizingReactor(Tokio);

impl Reactor for SanitizingReactor {
    type TcpStream = SanitizedStream<AsyncTcpStream<TokioStream>>;
    type Sleep = <Tokio as Reactor>::Sleep;

    /// lapin calls neither this function nor `tcp_connect_addr`, because [`connect`] opens its stream.
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
        let (abort, ended) = (CancellationToken::new(), CancellationToken::new());
        async move {
            let stream = AsyncTcpStream::Plain(connecting.await?);
            Ok(SanitizedStream::new(stream, abort, ended, ByteBudget::new(usize::MAX)))
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// A method frame on channel 0, which carries the methods of the connection itself.
    fn method(payload: &[u8]) -> Vec<u8> {
        let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&[1, 0, 0][..], &size, payload, &[0xce]].concat()
    }

    /// Accepts a connection, sends the frames in order, and closes the connection. The number beside each frame is
    /// the number of the client's reply frames to read after it.
    async fn close_after(listener: &TcpListener, frames: &[(Vec<u8>, usize)]) {
        let (mut client, _) = listener.accept().await.unwrap();
        // The protocol header, `AMQP` and the version.
        client.read_exact(&mut [0; 8]).await.unwrap();
        for (frame, replies) in frames {
            client.write_all(frame).await.unwrap();
            // If data is unread, the kernel resets the connection instead of closing it.
            for _ in 0..*replies {
                let mut head = [0; 7];
                client.read_exact(&mut head).await.unwrap();
                let size = usize::from(head[5]) << 8 | usize::from(head[6]);
                client.read_exact(&mut vec![0; size + 1]).await.unwrap();
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn connecting_fails_when_the_broker_closes_during_the_handshake() {
        // connection.start: version 0-9, no server properties, the mechanism, the locale.
        let start = method(b"\0\x0a\0\x0a\0\x09\0\0\0\0\0\0\0\x05PLAIN\0\0\0\x05en_US");
        // connection.tune: 2047 channels, frames of 128 KiB, a heartbeat of 10 seconds.
        let tune = method(b"\0\x0a\0\x1e\x07\xff\0\x02\0\0\0\x0a");
        let frames = [(start, 1), (tune, 0)];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for frames_sent in 0..=frames.len() {
            let uri = format!("amqp://127.0.0.1:{port}").parse().unwrap();
            let budget = ByteBudget::new(usize::MAX);
            let properties = ConnectionProperties::default();
            let connecting =
                connect(uri, properties, AmqpTlsFiles::default(), CancellationToken::new(), budget);
            let connecting = tokio::time::timeout(Duration::from_secs(30), connecting);
            let (connected, ()) =
                tokio::join!(connecting, close_after(&listener, &frames[..frames_sent]));
            let connected = connected.expect("connecting must end before the timeout");
            assert!(connected.is_err(), "the broker closed after {frames_sent} frames");
        }
    }
}
