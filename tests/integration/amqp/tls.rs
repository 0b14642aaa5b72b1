//! `amqps://` with a private certificate authority and a client certificate.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use belfry_adapters::amqp::{AmqpTlsFiles, ClientCertificateFiles, Publisher};
use belfry_tests::wait::until_true;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::rig::{Rig, Running};

/// A certificate authority that the operating system does not know.
struct Authority {
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut authority = CertificateParams::new([]).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = authority.self_signed(&key).unwrap();
        Self { certificate, issuer: Issuer::new(authority, key) }
    }

    fn issue(&self) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }
}

/// Starts a proxy that decrypts connections for a broker without TLS, and returns its URL. Clients need a
/// certificate of the authority.
async fn tls_in_front_of(broker: &str, authority: &Authority) -> String {
    let (login, rest) = broker.strip_prefix("amqp://").unwrap().split_once('@').unwrap();
    let (address, vhost) = rest.split_once('/').unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate.der().clone()).unwrap();
    let provider = Arc::new(ring::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
    let (certificate, key) = authority.issue();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients.build().unwrap())
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let broker = address.to_owned();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (acceptor, broker) = (acceptor.clone(), broker.clone());
            tokio::spawn(async move {
                let Ok(mut client) = acceptor.accept(client).await else { return };
                let mut broker = TcpStream::connect(broker).await.unwrap();
                let _ = copy_bidirectional(&mut client, &mut broker).await;
            });
        }
    });
    format!("amqps://{login}@localhost:{port}/{vhost}")
}

#[tokio::test]
async fn own_authority_and_client_certificate_are_used() {
    let authority = Authority::new();
    let rig = Rig::new().await;
    let url = tls_in_front_of(rig.broker.url(), &authority).await;
    let rig = rig.via(&url);
    let folder = TempDir::new().unwrap();
    let file = |name: &str, content: String| -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let (certificate, key) = authority.issue();
    let ca = Some(file("ca.pem", authority.certificate.pem()));
    let client = Some(ClientCertificateFiles {
        certificate: file("client.pem", certificate.pem()),
        key: file("client.key", key.serialize_pem()),
    });
    for (tls, connects) in [
        (AmqpTlsFiles { ca: ca.clone(), client: client.clone() }, true),
        (AmqpTlsFiles { ca: ca.clone(), client: None }, false),
        (AmqpTlsFiles { ca: None, client: client.clone() }, false),
    ] {
        let mut settings = rig.settings();
        settings.tls = tls;
        let publisher = Publisher::new(settings, rig.topology("a"));
        let running = Running::start({
            let publisher = publisher.clone();
            |stop| async move { publisher.run(stop).await }
        });
        if connects {
            until_true("it is connected", async || publisher.is_ready()).await;
        } else {
            tokio::time::sleep(Duration::from_millis(500)).await;
            assert!(!publisher.is_ready());
        }
        running.stop().await;
    }
}
