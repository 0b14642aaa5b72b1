use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use belfry_application::ports::PortError;
use bytes::Bytes;
use http::header::{ACCEPT, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;

use super::settings::{InvalidJwtSettings, JwksSettings};

/// Brings the document with a provider's keys.
#[async_trait]
pub(super) trait JwksFetch: Send + Sync {
    async fn fetch(&self) -> Result<String, PortError>;
}

/// Asks a web server for it. The address is the one that is set, whatever the server says: redirects
/// are not followed.
#[derive(Clone)]
pub(super) struct WebJwks {
    url: Uri,
    ca_file: Option<PathBuf>,
    timeout: Duration,
}

impl WebJwks {
    /// A set with [`super::jwks::MAX_KEYS`] keys and their certificates is smaller.
    const MAX_BYTES: usize = 512 * 1024;

    pub(super) fn new(settings: &JwksSettings) -> Result<Self, InvalidJwtSettings> {
        let url = parse(&settings.url).map_err(InvalidJwtSettings::Url)?;
        let fetch = Self { url, ca_file: settings.ca_file.clone(), timeout: settings.timeout };
        // Certificates that cannot be read should not be found out by the first fetch.
        fetch.trusted_roots()?;
        Ok(fetch)
    }

    /// Whom to believe that they are that server. Read for each fetch: a certificate that was renewed
    /// needs no restart.
    fn trusted_roots(&self) -> Result<RootCertStore, InvalidJwtSettings> {
        let mut roots = RootCertStore::empty();
        if self.url.scheme_str() == Some("http") {
            return Ok(roots);
        }
        if let Some(file) = &self.ca_file {
            for certificate in certificates(file)? {
                roots.add(certificate).map_err(|_| not_certificates(file))?;
            }
            if roots.is_empty() {
                return Err(not_certificates(file));
            }
        } else {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(InvalidJwtSettings::Url(
                    "this machine has no certificates to know an https:// server by",
                ));
            }
        }
        Ok(roots)
    }

    fn connector(&self) -> Result<HttpsConnector<HttpConnector>, PortError> {
        let roots = self.trusted_roots().map_err(PortError::unavailable)?;
        // Named, so that it is the one of all other connections, whatever else is linked in.
        let provider = rustls::crypto::ring::default_provider();
        let tls = ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .map_err(PortError::rejected)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls);
        Ok(connector.https_or_http().enable_http1().build())
    }

    async fn get(&self) -> Result<String, PortError> {
        let this = self.clone();
        // Reading the machine's certificates takes a while.
        let connector = tokio::task::spawn_blocking(move || this.connector()).await;
        let connector = connector.map_err(PortError::unavailable)??;
        let client = Client::builder(TokioExecutor::new()).build::<_, Empty<Bytes>>(connector);
        let request = Request::get(self.url.clone())
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, concat!("belfry/", env!("CARGO_PKG_VERSION")))
            .body(Empty::new())
            .map_err(PortError::rejected)?;
        let response = client.request(request).await.map_err(PortError::unavailable)?;
        if response.status() != StatusCode::OK {
            return Err(PortError::unavailable(format!("it answered {}", response.status())));
        }
        let body = Limited::new(response.into_body(), Self::MAX_BYTES).collect().await;
        let body = body.map_err(PortError::Unavailable)?.to_bytes();
        String::from_utf8(body.into()).map_err(|_| PortError::unavailable("it answered no text"))
    }
}

#[async_trait]
impl JwksFetch for WebJwks {
    async fn fetch(&self) -> Result<String, PortError> {
        match timeout(self.timeout, self.get()).await {
            Ok(fetched) => fetched,
            Err(_) => Err(PortError::unavailable("it took too long to answer")),
        }
    }
}

fn parse(url: &str) -> Result<Uri, &'static str> {
    let url: Uri = url.parse().map_err(|_| "it is not a URL")?;
    if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("it must not have a user or a password in it, as it is logged");
    }
    match url.scheme_str() {
        Some("https") => Ok(url),
        Some("http") if is_loopback(&url) => Ok(url),
        Some("http") => {
            Err("it must begin with https://; http:// is for loopback only, as whoever is \
                             in between could put in keys of their own")
        }
        _ => Err("it must begin with https://"),
    }
}

fn is_loopback(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, InvalidJwtSettings> {
    let unreadable = |error: std::io::Error| InvalidJwtSettings::Unreadable {
        path: file.to_owned(),
        reason: error.to_string(),
    };
    let pem = std::fs::read(file).map_err(unreadable)?;
    CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|_| not_certificates(file))
}

fn not_certificates(file: &Path) -> InvalidJwtSettings {
    let problem = InvalidJwtSettings::Url("it must hold PEM certificates");
    InvalidJwtSettings::InFile { path: file.to_owned(), problem: Box::new(problem) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::Router;
    use axum::response::Redirect;
    use axum::routing::get;
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn keys_come_by_https_or_from_this_machine() {
        for url in [
            "https://id.example.org/keys",
            "http://127.0.0.1:8080/keys",
            "http://127.8.0.1/keys",
            "http://localhost/keys",
            "http://[::1]:80/keys",
        ] {
            assert!(parse(url).is_ok(), "{url}");
        }
        for url in [
            "",
            "keys.json",
            "http://id.example.org/keys",
            "http://localhost.example.org/keys",
            "http://127.0.0.1.example.org/keys",
            "http://0.0.0.0/keys",
            "https://ada:secret@id.example.org/keys",
            "file:///etc/keys",
            "ftp://id.example.org/keys",
        ] {
            assert!(parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn certificates_that_cannot_be_read_are_found_out_before_they_are_needed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let with = |ca_file: &Path| {
            let usual = JwksSettings::new("https://id.example.org/keys");
            WebJwks::new(&JwksSettings { ca_file: Some(ca_file.to_owned()), ..usual }).err()
        };
        assert!(with(file.path()).is_some(), "empty");
        assert!(with(Path::new("nowhere.pem")).is_some(), "not there");
    }

    async fn serve(router: Router) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}/keys")
    }

    async fn fetch(url: &str) -> Result<String, PortError> {
        let timeout = Duration::from_millis(300);
        let settings = JwksSettings { timeout, ..JwksSettings::new(url) };
        WebJwks::new(&settings).unwrap().fetch().await
    }

    #[tokio::test]
    async fn a_document_is_brought_as_it_is() {
        let url = serve(Router::new().route("/keys", get(async || "the keys"))).await;
        assert_eq!(fetch(&url).await.unwrap(), "the keys");
    }

    #[tokio::test]
    async fn a_redirect_leads_nowhere() {
        let followed = Arc::new(AtomicUsize::new(0));
        let count = followed.clone();
        let elsewhere = serve(Router::new().route(
            "/keys",
            get(move || async move {
                count.fetch_add(1, Ordering::SeqCst);
                "other keys"
            }),
        ))
        .await;
        let redirect = move || async move { Redirect::temporary(&elsewhere) };
        let url = serve(Router::new().route("/keys", get(redirect))).await;
        let error = fetch(&url).await.unwrap_err();
        assert!(error.to_string().contains("307"), "{error}");
        assert_eq!(followed.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn what_is_too_large_too_slow_or_not_there_is_unavailable() {
        let large = get(async || vec![b' '; WebJwks::MAX_BYTES + 1]);
        let slow = get(async || tokio::time::sleep(Duration::from_mins(1)).await);
        let failing = get(async || http::StatusCode::INTERNAL_SERVER_ERROR);
        for route in [large, slow, failing] {
            let url = serve(Router::new().route("/keys", route)).await;
            let error = fetch(&url).await.unwrap_err();
            assert!(matches!(error, PortError::Unavailable(_)), "{error}");
        }
        let nobody = fetch("http://127.0.0.1:1/keys").await.unwrap_err();
        assert!(matches!(nobody, PortError::Unavailable(_)), "{nobody}");
    }
}
