use std::net::SocketAddr;

use axum::body::Body;
use axum::routing::{get, post};
use http::Request;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout};

use super::*;
use crate::transport::frame_reader::tests::frame;
use crate::transport::{
    ClientAddress, ConnectionLimits, Frame, OpeningHandshake, SendLimits, TcpSettings,
    TrustedProxies, text_frame,
};

/// The time in which something expected must happen. It is long, because the machine may be busy.
pub(in crate::transport) const PATIENCE: Duration = Duration::from_secs(20);
const HELLO: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
/// The length of the largest message that `/socket` accepts and echoes, in bytes.
const SOCKET_MESSAGE: usize = 3_000;

pub(in crate::transport) struct Running {
    address: SocketAddr,
    open: OpenConnections,
    end: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn settings() -> ServerSettings {
    ServerSettings { header_timeout: Duration::from_millis(300), ..ServerSettings::default() }
}

fn limits(connections: usize, per_address: usize) -> ServerSettings {
    let limits = ConnectionLimits { connections, per_address };
    ServerSettings { limits, ..ServerSettings::default() }
}

fn router() -> Router {
    Router::new()
        .route("/", get(async || "hello"))
        .route(
            "/client",
            get(async |request: Request<Body>| {
                request.extensions().get::<ClientAddress>().unwrap().0.to_string()
            }),
        )
        .route("/body", post(async |body: String| body))
        .route("/wait", get(async || std::future::pending::<()>().await))
        .route(
            "/slow",
            get(async || {
                tokio::time::sleep(Duration::from_millis(900)).await;
                "slow"
            }),
        )
        .route(
            "/socket",
            get(async |mut request: Request<Body>| {
                let opening = OpeningHandshake::take(&mut request).unwrap();
                let response = opening.response();
                tokio::spawn(async move {
                    let (writer, mut reader) = opening.accept(SOCKET_MESSAGE).await.unwrap();
                    let frame = std::future::poll_fn(|cx| reader.poll_frame(cx)).await.unwrap();
                    let Frame::Text(text) = frame else { panic!("{frame:?}") };
                    writer
                        .write([&text_frame(&[&text])].into_iter(), SendLimits::UNLIMITED)
                        .unwrap();
                });
                response
            }),
        )
}

async fn running(settings: ServerSettings) -> Running {
    serving(settings, router()).await
}

pub(in crate::transport) async fn serving(settings: ServerSettings, router: Router) -> Running {
    let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let listener = Listener::bind(address, TcpSettings::default()).await.unwrap();
    let server = Server::new(listener, settings).unwrap();
    let ListenAddress::Tcp(address) = server.address().unwrap() else { panic!("by TCP") };
    let (open, end) = (server.open_connections(), CancellationToken::new());
    let task = tokio::spawn(server.serve(router, end.clone()));
    Running { address, open, end, task }
}

impl Running {
    pub(in crate::transport) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Everything that is received in response to these bytes, until the connection ends.
    pub(in crate::transport) async fn response_to(&self, bytes: &[u8]) -> String {
        let mut client = self.connect().await;
        client.write_all(bytes).await.unwrap();
        received_until_end(&mut client).await
    }

    /// Stops the server and returns its task.
    pub(in crate::transport) fn stop(self) -> tokio::task::JoinHandle<()> {
        self.end.cancel();
        self.task
    }

    pub(in crate::transport) async fn until_open(&self, count: usize) {
        let wait = async {
            while self.open.count() != count {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, wait).await.expect("the expected number of open connections");
    }
}

/// Everything that is received until the connection ends, with or without a reset.
pub(in crate::transport) async fn received_until_end(
    client: &mut (impl AsyncRead + Unpin),
) -> String {
    let mut received = Vec::new();
    let end = timeout(PATIENCE, client.read_to_end(&mut received)).await;
    let _ = end.expect("the connection ends");
    String::from_utf8(received).unwrap()
}

/// One response, up to this text, on a connection that stays open.
pub(in crate::transport) async fn response(
    client: &mut (impl AsyncRead + Unpin),
    ends_with: &str,
) -> String {
    response_until(client, |text| text.ends_with(ends_with)).await
}

async fn response_until(
    client: &mut (impl AsyncRead + Unpin),
    is_complete: impl Fn(&str) -> bool,
) -> String {
    let mut response = String::new();
    let mut buffer = [0; 1024];
    while !is_complete(&response) {
        let read = timeout(PATIENCE, client.read(&mut buffer)).await.expect("in time").unwrap();
        assert_ne!(read, 0, "ended after {response:?}");
        response.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
    }
    response
}

#[tokio::test]
async fn connection_without_a_complete_head_is_closed() {
    let server = running(settings()).await;
    assert_eq!(server.response_to(b"").await, "");
    assert_eq!(server.response_to(b"GET / HTTP/1.1\r\nhost:").await, "");
    // A client that sends byte by byte gets no more time.
    let mut client = server.connect().await;
    let begin = Instant::now();
    while client.write_all(b"G").await.is_ok() {
        assert!(begin.elapsed() < PATIENCE, "the connection is still open");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    server.until_open(0).await;
}

#[tokio::test]
async fn head_timeout_does_not_limit_the_pause_before_a_head_or_the_response() {
    let server = running(settings()).await;
    let mut client = server.connect().await;
    client.write_all(HELLO).await.unwrap();
    response(&mut client, "hello").await;
    tokio::time::sleep(Duration::from_millis(900)).await;
    client.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    response(&mut client, "slow").await;
    // An incomplete later head also times out.
    client.write_all(b"GET / HT").await.unwrap();
    assert_eq!(received_until_end(&mut client).await, "");
}

#[tokio::test]
async fn idle_connection_is_closed_after_the_keep_alive_time() {
    let keep_alive = Duration::from_millis(500);
    let server = running(ServerSettings { keep_alive, ..ServerSettings::default() }).await;
    let mut client = server.connect().await;
    for _ in 0..2 {
        client.write_all(HELLO).await.unwrap();
        response(&mut client, "hello").await;
    }
    let idle_since = Instant::now();
    assert_eq!(received_until_end(&mut client).await, "");
    let idle = idle_since.elapsed();
    assert!(idle > keep_alive / 2 && idle < ServerSettings::default().keep_alive, "{idle:?}");
}

#[tokio::test]
async fn head_that_is_too_large_is_answered_with_431() {
    let server = running(ServerSettings::default()).await;
    let long = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(MAX_HEAD_BYTES));
    // With `host`, one field too many.
    let many = format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", "x: y\r\n".repeat(100));
    for head in [long, many] {
        let received = server.response_to(head.as_bytes()).await;
        assert!(received.starts_with("HTTP/1.1 431 "), "{received:?}");
    }
    // The longest valid token fits.
    let token = "y".repeat(8 * 1024);
    let fits = format!("GET / HTTP/1.1\r\nx: {token}\r\nconnection: close\r\n\r\n");
    assert!(server.response_to(fits.as_bytes()).await.ends_with("hello"));
}

#[tokio::test]
async fn connection_above_a_limit_is_closed_and_a_released_permit_is_used_again() {
    for settings in [limits(2, 100), limits(100, 2)] {
        let server = running(settings).await;
        let (one, _two) = (server.connect().await, server.connect().await);
        server.until_open(2).await;
        assert_eq!(server.response_to(HELLO).await, "");
        drop(one);
        server.until_open(1).await;
        let mut three = server.connect().await;
        three.write_all(HELLO).await.unwrap();
        response(&mut three, "hello").await;
    }
}

#[tokio::test]
async fn behind_a_trusted_proxy_clients_are_counted_instead_of_connections() {
    let trusted_proxies = TrustedProxies::parse(["127.0.0.0/8"]).unwrap();
    let server = running(ServerSettings { trusted_proxies, ..limits(100, 1) }).await;
    let request = |path: &str, client: &str| {
        format!("GET {path} HTTP/1.1\r\nhost: x\r\nx-forwarded-for: {client}\r\n\r\n")
    };
    let mut in_flight = server.connect().await;
    in_flight.write_all(request("/wait", "203.0.113.1").as_bytes()).await.unwrap();

    // Another connection of the proxy is accepted. On it, a second request of the same client is rejected once the
    // first one is counted, and another client's request is not.
    let mut proxy = server.connect().await;
    let mut rejected = String::new();
    for _ in 0..100 {
        proxy.write_all(request("/", "203.0.113.1").as_bytes()).await.unwrap();
        // A rejection has no body.
        rejected = response_until(&mut proxy, |text| {
            text.ends_with("hello") || text.contains(" 503 ") && text.ends_with("\r\n\r\n")
        })
        .await;
        if rejected.contains("503") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(rejected.starts_with("HTTP/1.1 503 "), "{rejected:?}");
    proxy.write_all(request("/client", "203.0.113.2").as_bytes()).await.unwrap();
    assert!(response(&mut proxy, "203.0.113.2").await.starts_with("HTTP/1.1 200 "));
    // The client's permit was released when the response was sent.
    proxy.write_all(request("/client", "203.0.113.2").as_bytes()).await.unwrap();
    assert!(response(&mut proxy, "203.0.113.2").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn forwarded_address_of_an_untrusted_peer_is_ignored() {
    let server = running(ServerSettings::default()).await;
    let received = server
        .response_to(
            b"GET /client HTTP/1.1\r\nx-forwarded-for: 203.0.113.1\r\nconnection: close\r\n\r\n",
        )
        .await;
    assert!(received.ends_with("\r\n\r\n127.0.0.1"), "{received}");
}

#[tokio::test]
async fn shutdown_closes_idle_connections_and_finishes_requests() {
    let server = running(ServerSettings::default()).await;
    let (mut idle, mut busy) = (server.connect().await, server.connect().await);
    idle.write_all(HELLO).await.unwrap();
    response(&mut idle, "hello").await;
    busy.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    server.end.cancel();
    assert_eq!(received_until_end(&mut idle).await, "");
    assert!(received_until_end(&mut busy).await.ends_with("slow"));
    timeout(PATIENCE, server.task).await.expect("the server ends").unwrap();
    assert!(TcpStream::connect(server.address).await.is_err(), "no connection is accepted");
}

#[tokio::test]
async fn bytes_after_an_opening_handshake_are_read_from_the_websocket() {
    let server = running(settings()).await;
    let head = "GET /socket HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let message: String = ('a'..='z').cycle().take(SOCKET_MESSAGE).collect();
    let mut client = server.connect().await;
    // 0x81: a final text frame.
    let head_and_frame = [head.as_bytes(), &frame(0x81, message.as_bytes())].concat();
    client.write_all(&head_and_frame).await.unwrap();
    let mut received = Vec::new();
    let end = timeout(PATIENCE, client.read_to_end(&mut received)).await;
    end.expect("the connection ends").unwrap();
    let is_upgraded = received.starts_with(b"HTTP/1.1 101 ");
    assert!(is_upgraded && received.ends_with(message.as_bytes()), "the message must be echoed");
}

#[tokio::test]
async fn peers_on_a_unix_socket_are_trusted_like_a_proxy() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("belfry.sock");
    let listener = Listener::bind(ListenAddress::Unix(path.clone()), TcpSettings::default());
    let server = Server::new(listener.await.unwrap(), limits(100, 1)).unwrap();
    let end = CancellationToken::new();
    let task = tokio::spawn(server.serve(router(), end.clone()));
    for (header, client) in [("", "127.0.0.1"), ("x-forwarded-for: 203.0.113.1\r\n", "203.0.113.1")]
    {
        let mut one = UnixStream::connect(&path).await.unwrap();
        let request = format!("GET /client HTTP/1.1\r\nhost: x\r\n{header}\r\n");
        one.write_all(request.as_bytes()).await.unwrap();
        response(&mut one, client).await;
    }
    end.cancel();
    timeout(PATIENCE, task).await.expect("the server ends").unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn tls_uses_the_configured_certificate_and_http_1_1_only() {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, ServerName};
    use tokio_rustls::TlsConnector;

    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let tls = crate::transport::Tls::open(crate::transport::TlsFiles { certificate, key });
    let tls = Some(Arc::new(tls.unwrap()));
    let server = running(ServerSettings { tls, ..settings() }).await;

    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(made.cert.pem().as_bytes()).unwrap()).unwrap();
    let connect = async |alpn: &[&[u8]]| {
        let provider = rustls::crypto::ring::default_provider();
        let mut config = rustls::ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(name, server.connect().await).await
    };
    let mut client = connect(&[b"h2", b"http/1.1"]).await.unwrap();
    assert_eq!(client.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    client.write_all(HELLO).await.unwrap();
    response(&mut client, "hello").await;
    assert!(connect(&[b"h2"]).await.is_err(), "HTTP/2 is not supported");

    // A connection without a TLS handshake is closed.
    assert!(!server.response_to(HELLO).await.contains("HTTP/1.1"));
    assert_eq!(server.response_to(b"").await, "");
    drop(client);
    server.until_open(0).await;
}
