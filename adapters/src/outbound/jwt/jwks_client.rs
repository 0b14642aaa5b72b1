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

use super::error::InvalidJwtSettings;
use super::settings::JwksSettings;

/// Where an identity provider's JWKS document comes from.
#[async_trait]
pub(super) trait JwksSource: Send + Sync {
    async fn fetch(&self) -> Result<String, PortError>;
}

/// Fetches the JWKS by HTTP from the configured URL. Redirects are not followed.
#[derive(Clone)]
pub(super) struct JwksClient {
    url: Uri,
    ca_file: Option<PathBuf>,
    timeout: Duration,
}

impl JwksClient {
    /// The maximum size of the body. A JWKS of [`super::jwks::MAX_KEYS`] keys with certificates is smaller.
    const MAX_BYTES: usize = 512 * 1024;

    pub(super) fn new(settings: &JwksSettings) -> Result<Self, InvalidJwtSettings> {
        let url = parse_url(&settings.url).map_err(InvalidJwtSettings::Url)?;
        let client = Self { url, ca_file: settings.ca_file.clone(), timeout: settings.timeout };
        // Report unreadable certificates at startup, not at the first fetch.
        client.trusted_roots()?;
        Ok(client)
    }

    /// The certificates that the server's certificate is verified against. They are read for each fetch,
    /// so that a renewed certificate needs no restart.
    fn trusted_roots(&self) -> Result<RootCertStore, InvalidJwtSettings> {
        let mut roots = RootCertStore::empty();
        if self.url.scheme_str() == Some("http") {
            return Ok(roots);
        }
        if let Some(file) = &self.ca_file {
            for certificate in certificates(file)? {
                roots
                    .add(certificate)
                    .map_err(|_| InvalidJwtSettings::NotCertificates.in_file(file))?;
            }
            if roots.is_empty() {
                return Err(InvalidJwtSettings::NotCertificates.in_file(file));
            }
        } else {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(InvalidJwtSettings::Url(
                    "the system has no root certificates to verify an https:// server with",
                ));
            }
        }
        Ok(roots)
    }

    fn connector(&self) -> Result<HttpsConnector<HttpConnector>, PortError> {
        let roots = self.trusted_roots().map_err(PortError::unavailable)?;
        // Set explicitly, so that it is ring, as for all other connections, whatever else is linked in.
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
        // Reading the system's certificates blocks.
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
            return Err(PortError::unavailable(format!("HTTP status {}", response.status())));
        }
        let body = Limited::new(response.into_body(), Self::MAX_BYTES).collect().await;
        let body = body.map_err(PortError::Unavailable)?.to_bytes();
        String::from_utf8(body.into())
            .map_err(|_| PortError::unavailable("the response is not UTF-8"))
    }
}

impl JwksSettings {
    /// Checks the URL and reads the certificates. Nothing is fetched.
    pub fn check(&self) -> Result<(), InvalidJwtSettings> {
        JwksClient::new(self).map(drop)
    }
}

#[async_trait]
impl JwksSource for JwksClient {
    async fn fetch(&self) -> Result<String, PortError> {
        match timeout(self.timeout, self.get()).await {
            Ok(fetched) => fetched,
            Err(_) => Err(PortError::unavailable("timed out")),
        }
    }
}

fn parse_url(url: &str) -> Result<Uri, &'static str> {
    let url: Uri = url.parse().map_err(|_| "it is not a valid URL")?;
    if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("it must not contain a user name or password, because it is logged");
    }
    match url.scheme_str() {
        Some("https") => Ok(url),
        Some("http") if is_loopback(&url) => Ok(url),
        Some("http") => {
            Err("it must begin with https://; http:// is for loopback only, because an \
                             attacker on the network could replace the keys")
        }
        _ => Err("it must begin with https://"),
    }
}

fn is_loopback(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, InvalidJwtSettings> {
    let pem = std::fs::read(file).map_err(|error| InvalidJwtSettings::unreadable(file, &error))?;
    CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|_| InvalidJwtSettings::NotCertificates.in_file(file))
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
    fn only_https_urls_and_loopback_http_urls_are_accepted() {
        for url in [
            "https://id.example.org/keys",
            "http://127.0.0.1:8080/keys",
            "http://127.8.0.1/keys",
            "http://localhost/keys",
            "http://[::1]:80/keys",
        ] {
            assert!(parse_url(url).is_ok(), "{url}");
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
            assert!(parse_url(url).is_err(), "{url}");
        }
    }

    #[test]
    fn unreadable_certificates_are_rejected_at_startup() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error_with = |ca_file: &Path| {
            let default = JwksSettings::new("https://id.example.org/keys");
            JwksClient::new(&JwksSettings { ca_file: Some(ca_file.to_owned()), ..default }).err()
        };
        assert!(error_with(file.path()).is_some(), "empty");
        assert!(error_with(Path::new("nowhere.pem")).is_some(), "missing");
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
        JwksClient::new(&settings).unwrap().fetch().await
    }

    #[tokio::test]
    async fn document_is_returned_unchanged() {
        let url = serve(Router::new().route("/keys", get(async || "the keys"))).await;
        assert_eq!(fetch(&url).await.unwrap(), "the keys");
    }

    #[tokio::test]
    async fn redirect_is_not_followed() {
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
    async fn large_slow_failed_and_missing_responses_are_unavailable() {
        let large = get(async || vec![b' '; JwksClient::MAX_BYTES + 1]);
        let slow = get(async || tokio::time::sleep(Duration::from_mins(1)).await);
        let failing = get(async || http::StatusCode::INTERNAL_SERVER_ERROR);
        for route in [large, slow, failing] {
            let url = serve(Router::new().route("/keys", route)).await;
            let error = fetch(&url).await.unwrap_err();
            assert!(matches!(error, PortError::Unavailable(_)), "{error}");
        }
        let refused = fetch("http://127.0.0.1:1/keys").await.unwrap_err();
        assert!(matches!(refused, PortError::Unavailable(_)), "{refused}");
    }
}
