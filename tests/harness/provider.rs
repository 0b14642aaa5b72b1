//! An identity provider that publishes its keys and can be taken down.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::serve::Listener;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto};
use tokio_rustls::server::TlsStream;

use crate::tokens::{Key, jwks};

/// A provider that serves a JWKS on a free port of the loopback interface, until it is dropped.
pub struct Provider {
    url: String,
    ca_pem: Option<String>,
    published: Arc<Published>,
    serving: JoinHandle<()>,
}

#[derive(Default)]
struct Published {
    document: Mutex<String>,
    is_down: AtomicBool,
    fetches: AtomicUsize,
}

impl Provider {
    /// Publishes these keys over HTTP.
    pub async fn start(keys: &[&Key]) -> Self {
        let listener = bind().await;
        let url = format!("http://{}/keys", address(&listener));
        Self::serve(listener, url, None, keys)
    }

    /// Publishes these keys over HTTPS. A new authority issues the certificate; [`ca_pem`](Self::ca_pem) is
    /// the authority's own certificate.
    pub async fn start_with_tls(keys: &[&Key]) -> Self {
        let tcp = bind().await;
        let url = format!("https://localhost:{}/keys", address(&tcp).port());
        let (acceptor, ca_pem) = tls_acceptor("localhost");
        Self::serve(TlsListener { tcp, acceptor }, url, Some(ca_pem), keys)
    }

    fn serve<L>(listener: L, url: String, ca_pem: Option<String>, keys: &[&Key]) -> Self
    where
        L: Listener<Addr = SocketAddr>,
    {
        let published = Arc::new(Published::default());
        let router = Router::new().route("/keys", get(answer)).with_state(published.clone());
        let serving = tokio::spawn(async move {
            // The server runs until the task is aborted.
            let _ = axum::serve(listener, router).await;
        });
        let provider = Self { url, ca_pem, published, serving };
        provider.publish(keys);
        provider
    }

    /// The value of `auth.jwks_url`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The content of `auth.jwks_ca_file`.
    ///
    /// # Panics
    /// When the provider does not serve over HTTPS.
    pub fn ca_pem(&self) -> &str {
        self.ca_pem.as_deref().expect("it serves over HTTPS")
    }

    /// Publishes these keys and no others from now on.
    pub fn publish(&self, keys: &[&Key]) {
        let document = jwks(keys.iter().copied()).to_string();
        *self.published.document.lock().expect("no panic while it is locked") = document;
    }

    /// Answers 503 from now on.
    pub fn go_down(&self) {
        self.published.is_down.store(true, Ordering::SeqCst);
    }

    /// Answers with the keys again.
    pub fn come_back(&self) {
        self.published.is_down.store(false, Ordering::SeqCst);
    }

    /// The number of requests so far.
    pub fn fetches(&self) -> usize {
        self.published.fetches.load(Ordering::SeqCst)
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn answer(State(published): State<Arc<Published>>) -> (StatusCode, String) {
    published.fetches.fetch_add(1, Ordering::SeqCst);
    if published.is_down.load(Ordering::SeqCst) {
        return (StatusCode::SERVICE_UNAVAILABLE, String::new());
    }
    (StatusCode::OK, published.document.lock().expect("no panic while it is locked").clone())
}

async fn bind() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("there is a free port")
}

fn address(listener: &TcpListener) -> SocketAddr {
    listener.local_addr().expect("it is bound")
}

/// A TLS acceptor with a certificate for this name, and the certificate of the authority that issued it.
fn tls_acceptor(name: &str) -> (TlsAcceptor, String) {
    let mut authority = CertificateParams::new([]).expect("an authority needs no names");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key can be made");
    let ca_pem = authority.self_signed(&key).expect("it can sign itself").pem();
    let issuer = Issuer::new(authority, key);

    let key = KeyPair::generate().expect("a key can be made");
    let server = CertificateParams::new([name.to_owned()]).expect("it is a host name");
    let certificate = server.signed_by(&key, &issuer).expect("the authority can sign");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("ring has them")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("key and certificate belong together");
    (TlsAcceptor::from(Arc::new(config)), ca_pem)
}

struct TlsListener {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((stream, peer)) = self.tcp.accept().await else { continue };
            // The handshake fails if the client does not trust the certificate.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, peer);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}
