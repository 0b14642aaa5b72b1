//! TLS for accepted connections. The certificate is reloaded when its file changes.

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

/// The files of the certificate and its key, in PEM (RFC 7468).
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The server's certificate, followed by its intermediate certificates.
    pub certificate: PathBuf,
    /// Its private key: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
}

/// Why the certificate cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are sufficient")]
pub enum InvalidTls {
    #[error("cannot read {0}")]
    Unreadable(PathBuf, #[source] std::io::Error),
    #[error("{0} has no certificates in PEM")]
    NoCertificate(PathBuf),
    // Without its cause, so that no part of a key gets into a log.
    #[error("{0} has no private key in PEM")]
    NoKey(PathBuf),
    #[error("the certificate and the key cannot be used together")]
    Unusable(#[source] rustls::Error),
}

/// The TLS configuration of new connections.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    current: RwLock<Arc<ServerConfig>>,
    /// The digest of the files when they were last checked; `None` if they could not be read.
    last_digest: Mutex<Option<Digest>>,
}

type Digest = [u8; 32];

struct Pems {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Tls {
    /// How often the content of the files is checked for changes.
    const CHECK_EVERY: Duration = Duration::from_secs(5);

    /// Reads the files.
    pub fn open(files: TlsFiles) -> Result<Self, InvalidTls> {
        let pems = Pems::read(&files)?;
        let current = RwLock::new(Arc::new(pems.config(&files)?));
        Ok(Self { files, current, last_digest: Mutex::new(Some(pems.digest())) })
    }

    /// An acceptor with the current certificate.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.read().clone())
    }

    /// Reloads changed files until `stop` is cancelled.
    pub(super) async fn watch_files(self: Arc<Self>, stop: &CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(Self::CHECK_EVERY)).await.is_some() {
            let this = self.clone();
            // A network file system may be slow. If the check panics, the old certificate stays in use.
            let _ = tokio::task::spawn_blocking(move || this.reload_if_changed()).await;
        }
    }

    /// Loads both files or neither: while only one of them has been replaced they do not match, and the old pair
    /// stays in use.
    fn reload_if_changed(&self) {
        let read = Pems::read(&self.files);
        let digest = read.as_ref().ok().map(Pems::digest);
        let mut last = self.last_digest.lock();
        if *last == digest {
            return;
        }
        *last = digest;
        match read.and_then(|pems| pems.config(&self.files)) {
            Ok(config) => {
                info!("TLS certificate reloaded");
                *self.current.write() = Arc::new(config);
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                error!(error, "cannot reload TLS certificate; using the old one");
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
        // WebSockets need HTTP/1.1 (RFC 6455, section 4.1).
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
    fn changed_pair_is_reloaded_and_a_half_changed_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (pair(), pair());
        let tls = Tls::open(files(folder.path(), &old)).unwrap();
        let before = tls.current.read().clone();
        tls.reload_if_changed();
        assert!(Arc::ptr_eq(&before, &tls.current.read()), "nothing has changed");

        files(folder.path(), &(new.0.clone(), old.1));
        tls.reload_if_changed();
        assert!(Arc::ptr_eq(&before, &tls.current.read()), "another key's certificate");
        std::fs::remove_file(&tls.files.key).unwrap();
        tls.reload_if_changed();
        assert!(Arc::ptr_eq(&before, &tls.current.read()), "no key at all");

        files(folder.path(), &new);
        tls.reload_if_changed();
        assert!(!Arc::ptr_eq(&before, &tls.current.read()), "a new pair");
    }

    #[test]
    fn unusable_file_is_named_and_no_key_is_printed() {
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
