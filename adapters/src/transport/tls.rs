//! TLS on accepted connections, with a certificate that is read again when its file changes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use sha2::{Digest as _, Sha256};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

/// Where the certificate and its key are, in PEM (RFC 7468).
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The server's certificate, and after it those that lead to an authority.
    pub certificate: PathBuf,
    /// Its private key: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each says it")]
pub enum InvalidTls {
    #[error("cannot read {0}")]
    Unreadable(PathBuf, #[source] std::io::Error),
    #[error("{0} has no certificates in PEM")]
    NoCertificate(PathBuf),
    // Without its cause: no word of a key should get into a log.
    #[error("{0} has no private key in PEM")]
    NoKey(PathBuf),
    #[error("the certificate and the key cannot be used together")]
    Unusable(#[source] rustls::Error),
}

/// What TLS handshakes are made with.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    current: RwLock<Arc<ServerConfig>>,
    /// What the files held when they were last looked at; `None` if they could not be read.
    last: Mutex<Option<Digest>>,
}

type Digest = [u8; 32];

struct Pems {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Tls {
    /// How often the files are looked at, by their content, as the files of keys for tokens are.
    const LOOK_EVERY: Duration = Duration::from_secs(5);

    /// Reads the files.
    pub fn open(files: TlsFiles) -> Result<Self, InvalidTls> {
        let pems = Pems::read(&files)?;
        let current = RwLock::new(Arc::new(pems.config(&files)?));
        Ok(Self { files, current, last: Mutex::new(Some(pems.digest())) })
    }

    /// For a handshake with what is good now.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.read().clone())
    }

    /// Looks at the files until told to stop.
    pub(super) async fn keep(self: Arc<Self>, stop: &CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(Self::LOOK_EVERY)).await.is_some() {
            let this = self.clone();
            // A network file system may take its time. Should it panic, the certificate stays.
            let _ = tokio::task::spawn_blocking(move || this.look()).await;
        }
    }

    /// Takes over what the files hold now, both or neither: between the change of one and of the other
    /// they do not fit, and the old ones stay.
    fn look(&self) {
        let read = Pems::read(&self.files);
        let digest = read.as_ref().ok().map(Pems::digest);
        let mut last = self.last.lock();
        if *last == digest {
            return;
        }
        *last = digest;
        match read.and_then(|pems| pems.config(&self.files)) {
            Ok(config) => {
                info!("TLS certificate read again");
                *self.current.write() = Arc::new(config);
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                error!(error, "TLS certificate cannot be read again: the old one stays");
            }
        }
    }
}

impl Pems {
    fn read(files: &TlsFiles) -> Result<Self, InvalidTls> {
        let read = |path: &PathBuf| {
            std::fs::read(path).map_err(|error| InvalidTls::Unreadable(path.clone(), error))
        };
        Ok(Self { certificate: read(&files.certificate)?, key: read(&files.key)? })
    }

    fn digest(&self) -> Digest {
        let mut hash = Sha256::new();
        hash.update((self.certificate.len() as u64).to_be_bytes());
        hash.update(&self.certificate);
        hash.update(&self.key);
        hash.finalize().into()
    }

    fn config(&self, files: &TlsFiles) -> Result<ServerConfig, InvalidTls> {
        let certificates: Result<Vec<_>, pem::Error> =
            CertificateDer::pem_slice_iter(&self.certificate).collect();
        let certificates = certificates
            .ok()
            .filter(|chain| !chain.is_empty())
            .ok_or_else(|| InvalidTls::NoCertificate(files.certificate.clone()))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| InvalidTls::NoKey(files.key.clone()))?;
        let provider = rustls::crypto::ring::default_provider();
        let mut config = ServerConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .and_then(|versions| versions.with_no_client_auth().with_single_cert(certificates, key))
            .map_err(InvalidTls::Unusable)?;
        // What is served is HTTP/1.1 alone: WebSockets need it (RFC 6455, 4.1).
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    fn files(folder: &std::path::Path, (certificate, key): &(String, String)) -> TlsFiles {
        let files = TlsFiles { certificate: folder.join("tls.crt"), key: folder.join("tls.key") };
        std::fs::write(&files.certificate, certificate).unwrap();
        std::fs::write(&files.key, key).unwrap();
        files
    }

    #[test]
    fn a_changed_pair_is_taken_over_and_a_half_changed_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (pair(), pair());
        let tls = Tls::open(files(folder.path(), &old)).unwrap();
        let before = tls.current.read().clone();
        tls.look();
        assert!(Arc::ptr_eq(&before, &tls.current.read()), "nothing has changed");

        files(folder.path(), &(new.0.clone(), old.1));
        tls.look();
        assert!(Arc::ptr_eq(&before, &tls.current.read()), "another key's certificate");
        std::fs::remove_file(&tls.files.key).unwrap();
        tls.look();
        assert!(Arc::ptr_eq(&before, &tls.current.read()), "no key at all");

        files(folder.path(), &new);
        tls.look();
        assert!(!Arc::ptr_eq(&before, &tls.current.read()), "a new pair");
    }

    #[test]
    fn what_cannot_be_used_is_named_and_no_key_is_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = pair();
        let problem = |certificate: &str, key: &str| {
            let files = files(folder.path(), &(certificate.to_owned(), key.to_owned()));
            let error = Tls::open(files).unwrap_err();
            assert!(!format!("{error:?}").contains("MIG"), "{error:?}");
            error.to_string()
        };
        assert!(problem("", &key).contains("tls.crt has no certificates"));
        assert!(problem(&certificate, "").contains("tls.key has no private key"));
        assert!(problem(&certificate, &certificate).contains("tls.key has no private key"));
        assert!(problem(&certificate, &pair().1).contains("together"));
        let nowhere = TlsFiles { certificate: "nowhere.crt".into(), key: "nowhere.key".into() };
        assert!(Tls::open(nowhere).unwrap_err().to_string().contains("nowhere.crt"));
    }
}
