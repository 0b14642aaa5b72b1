use std::path::{Path, PathBuf};
use std::sync::Arc;

use lapin::tcp::RustlsConnector;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use rustls::{ClientConfig, RootCertStore};

use crate::http_client::system_roots;

/// The files for `amqps://` connections, in PEM (RFC 7468). They are read at each connect, so that renewed
/// certificates need no restart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AmqpTlsFiles {
    /// The CA certificates that verify the broker, instead of the system's.
    pub ca: Option<PathBuf>,
    /// A certificate that authenticates Belfry to the broker.
    pub client: Option<ClientCertificateFiles>,
}

/// The files of a client certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificateFiles {
    /// The certificate, followed by its intermediate certificates.
    pub certificate: PathBuf,
    /// The private key of the certificate: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
}

/// Why the TLS files cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are sufficient")]
pub enum InvalidAmqpTls {
    #[error("cannot read {0}: {1}")]
    Unreadable(PathBuf, #[source] std::io::Error),
    #[error("{0} has no certificates in PEM, or an invalid one")]
    NoCertificate(PathBuf),
    // The cause is left out, so that no part of a key is logged.
    #[error("{0} has no usable private key in PEM: PKCS#8, PKCS#1 or SEC1, not encrypted")]
    NoKey(PathBuf),
    #[error("the system has no root certificates to verify the broker with")]
    NoSystemRoots,
    #[error("the client certificate and its key cannot be used together: {0}")]
    Unusable(#[from] rustls::Error),
}

impl AmqpTlsFiles {
    /// Reads the files without connecting, to report errors at startup.
    pub fn check(&self) -> Result<(), InvalidAmqpTls> {
        self.connector().map(drop)
    }

    /// Reads the files for a new connection. Blocks the thread.
    pub(super) fn connector(&self) -> Result<RustlsConnector, InvalidAmqpTls> {
        // All TLS connections of Belfry use ring for cryptography. It is set explicitly, because the default
        // provider depends on the crates that are linked.
        let provider = rustls::crypto::ring::default_provider();
        let config = ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(self.roots()?);
        let config = match &self.client {
            None => config.with_no_client_auth(),
            Some(ClientCertificateFiles { certificate, key: key_file }) => {
                let key = PrivateKeyDer::from_pem_slice(&read(key_file)?)
                    .map_err(|_| InvalidAmqpTls::NoKey(key_file.clone()))?;
                config.with_client_auth_cert(certificates(certificate)?, key)?
            }
        };
        Ok(Arc::new(config).into())
    }

    fn roots(&self) -> Result<RootCertStore, InvalidAmqpTls> {
        let Some(file) = &self.ca else {
            let roots = system_roots();
            return if roots.is_empty() { Err(InvalidAmqpTls::NoSystemRoots) } else { Ok(roots) };
        };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(file)? {
            let added = roots.add(certificate);
            added.map_err(|_| InvalidAmqpTls::NoCertificate(file.clone()))?;
        }
        Ok(roots)
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, InvalidAmqpTls> {
    let read: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&read(file)?).collect();
    read.ok()
        .filter(|certificates| !certificates.is_empty())
        .ok_or_else(|| InvalidAmqpTls::NoCertificate(file.to_owned()))
}

fn read(file: &Path) -> Result<Vec<u8>, InvalidAmqpTls> {
    std::fs::read(file).map_err(|error| InvalidAmqpTls::Unreadable(file.to_owned(), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unusable_file_is_reported_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            path
        };
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (certificate, key) =
            (file("c.pem", &pair.cert.pem()), file("k.pem", &pair.signing_key.serialize_pem()));
        let client = |certificate: &PathBuf, key: &PathBuf| {
            Some(ClientCertificateFiles { certificate: certificate.clone(), key: key.clone() })
        };
        let files = |ca: &PathBuf, client| AmqpTlsFiles { ca: Some(ca.clone()), client };
        assert!(files(&certificate, client(&certificate, &key)).check().is_ok());

        let missing = folder.path().join("missing.pem");
        for (files, expected) in [
            (files(&missing, None), "cannot read"),
            (files(&key, None), "no certificates"),
            (files(&certificate, client(&key, &key)), "no certificates"),
            (files(&certificate, client(&certificate, &certificate)), "no usable private key"),
        ] {
            let error = files.check().unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains(".pem"), "{error}");
        }
        let other_pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let other_key = file("o.pem", &other_pair.signing_key.serialize_pem());
        let error = files(&certificate, client(&certificate, &other_key)).check().unwrap_err();
        assert!(error.to_string().contains("cannot be used together"), "{error}");
    }
}
