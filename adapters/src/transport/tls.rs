//! TLS for accepted connections. The certificate is reloaded when its file changes.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::file_access::{self, UnusableFile};
use crate::polled_files::{FileSource, PolledFiles};

/// The maximum size of a file with certificates or a key, in bytes.
const MAX_BYTES: u64 = 1024 * 1024;

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
    #[error(transparent)]
    File(#[from] UnusableFile),
    #[error("{0} has no certificates in PEM, or an invalid one")]
    NoCertificate(PathBuf),
    // The cause is left out, so that no part of a key gets into a log.
    #[error("{0} has no usable private key in PEM: PKCS#8, PKCS#1 or SEC1, not encrypted")]
    NoKey(PathBuf),
    #[error("the certificate and the key cannot be used together")]
    Unusable(#[source] rustls::Error),
}

/// The TLS configuration of new connections.
#[derive(Debug)]
pub struct Tls(Arc<PolledFiles<TlsFiles>>);

impl Tls {
    /// Reads the files.
    pub fn open(files: TlsFiles) -> Result<Self, InvalidTls> {
        Ok(Self(Arc::new(PolledFiles::open(files)?)))
    }

    /// An acceptor with the current certificate.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.0.current())
    }

    /// Reloads changed files until `stop` is cancelled.
    pub(super) async fn watch_files(&self, stop: &CancellationToken) {
        // The files are also checked periodically, so nothing else requests a reload.
        let never_notified = Notify::new();
        self.0.clone().run(&never_notified, stop).await;
    }
}

/// The content of both files.
#[derive(PartialEq)]
pub(crate) struct Pems {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// While only one of the files has been replaced they do not match, and the old pair stays in use.
impl FileSource for TlsFiles {
    type Content = Pems;
    type Value = ServerConfig;
    type Error = InvalidTls;

    fn read(&self) -> Result<Pems, InvalidTls> {
        let read = |path| file_access::read(path, MAX_BYTES).map(|(bytes, _)| bytes);
        Ok(Pems { certificate: read(&self.certificate)?, key: read(&self.key)? })
    }

    fn load(&self, pems: &Pems) -> Result<ServerConfig, InvalidTls> {
        let certificates: Result<Vec<_>, pem::Error> =
            CertificateDer::pem_slice_iter(&pems.certificate).collect();
        let certificates = certificates
            .ok()
            .filter(|chain| !chain.is_empty())
            .ok_or_else(|| InvalidTls::NoCertificate(self.certificate.clone()))?;
        let key = PrivateKeyDer::from_pem_slice(&pems.key)
            .map_err(|_| InvalidTls::NoKey(self.key.clone()))?;
        let provider = rustls::crypto::ring::default_provider();
        let mut config = ServerConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .and_then(|versions| versions.with_no_client_auth().with_single_cert(certificates, key))
            .map_err(InvalidTls::Unusable)?;
        // WebSockets need HTTP/1.1 (RFC 6455, section 4.1).
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    fn log_reload(&self, result: Result<&ServerConfig, &InvalidTls>) {
        match result {
            Ok(_) => info!("TLS certificate reloaded"),
            Err(error) => {
                let error = error as &dyn std::error::Error;
                error!(error, "cannot reload TLS certificate; using the old one");
            }
        }
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
        let original = files(folder.path(), &old);
        let tls = Tls::open(original.clone()).unwrap();
        let before = tls.0.current();
        tls.0.reload(false);
        assert!(Arc::ptr_eq(&before, &tls.0.current()), "nothing has changed");

        files(folder.path(), &(new.0.clone(), old.1));
        tls.0.reload(false);
        assert!(Arc::ptr_eq(&before, &tls.0.current()), "the new certificate needs another key");
        std::fs::remove_file(&original.key).unwrap();
        tls.0.reload(false);
        assert!(Arc::ptr_eq(&before, &tls.0.current()), "there is no key");

        files(folder.path(), &new);
        tls.0.reload(false);
        assert!(!Arc::ptr_eq(&before, &tls.0.current()), "the new pair is complete");
    }

    #[test]
    fn unusable_file_is_named_and_no_key_is_printed() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = pair();
        let problem = |certificate: &str, key: &str| {
            let files = files(folder.path(), &(certificate.to_owned(), key.to_owned()));
            let error = Tls::open(files).unwrap_err();
            // The Base64 text of the key begins with `MIG`.
            assert!(!format!("{error:?}").contains("MIG"), "{error:?}");
            error.to_string()
        };
        assert!(problem("", &key).contains("tls.crt has no certificates"));
        assert!(problem(&certificate, "").contains("tls.key has no usable private key"));
        assert!(problem(&certificate, &certificate).contains("tls.key has no usable private key"));
        assert!(problem(&certificate, &pair().1).contains("together"));
        let nowhere = TlsFiles { certificate: "nowhere.crt".into(), key: "nowhere.key".into() };
        assert!(Tls::open(nowhere).unwrap_err().to_string().contains("nowhere.crt"));
    }

    #[test]
    fn file_that_everyone_can_write_to_is_rejected() {
        use std::os::unix::fs::PermissionsExt as _;

        let folder = tempfile::tempdir().unwrap();
        let files = files(folder.path(), &pair());
        for file in [&files.key, &files.certificate] {
            std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o666)).unwrap();
            let problem = Tls::open(files.clone()).unwrap_err();
            assert!(matches!(problem, InvalidTls::File(_)), "{problem}");
            std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        Tls::open(files).unwrap();
    }
}
