use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use belfry_application::ports::PortError;
use http::StatusCode;
use http::header::ACCEPT;
use http_body_util::{BodyExt as _, Limited};
use reqwest::{Body, Client, Url};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::time::timeout;

use super::error::InvalidJwtSettings;
use super::settings::JwksSettings;
use crate::{file_access, http_client};

/// A source of an identity provider's JWKS, as text.
#[async_trait]
pub(super) trait JwksSource: Send + Sync {
    async fn fetch(&self) -> Result<String, PortError>;
}

/// Fetches the JWKS by HTTP from the configured URL. Redirects are not followed.
///
/// `https://` requests use the proxy of the environment (`HTTPS_PROXY`, except for the hosts in `NO_PROXY`).
/// The proxy only forwards the encrypted connection, so it cannot replace the keys. `http://` requests never
/// use a proxy, because they must not leave the host.
#[derive(Clone)]
pub(super) struct JwksClient {
    url: Url,
    ca_file: Option<PathBuf>,
    timeout: Duration,
}

impl JwksClient {
    /// The maximum size of the response's body. A JWKS of [`super::jwks::MAX_KEYS`] keys with certificates is
    /// smaller.
    const MAX_BYTES: usize = 512 * 1024;

    pub(super) fn new(settings: &JwksSettings) -> Result<Self, InvalidJwtSettings> {
        let url = parse_url(&settings.url).map_err(InvalidJwtSettings::Url)?;
        let client = Self { url, ca_file: settings.ca_file.clone(), timeout: settings.timeout };
        // Report unreadable certificates at startup, not at the first fetch.
        client.trusted_roots()?;
        Ok(client)
    }

    /// The certificates that the server's certificate is verified against. They are read for each fetch,
    /// so that a renewed certificate needs no restart. Empty for `http://`.
    fn trusted_roots(&self) -> Result<RootCertStore, InvalidJwtSettings> {
        if self.is_unencrypted() {
            return Ok(RootCertStore::empty());
        }
        if let Some(file) = &self.ca_file {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(file)? {
                roots
                    .add(certificate)
                    .map_err(|_| InvalidJwtSettings::NotCertificates.in_file(file))?;
            }
            if roots.is_empty() {
                return Err(InvalidJwtSettings::NotCertificates.in_file(file));
            }
            Ok(roots)
        } else {
            let roots = http_client::system_roots();
            if roots.is_empty() {
                return Err(InvalidJwtSettings::Url(
                    "the system has no root certificates to verify an https:// server with",
                ));
            }
            Ok(roots)
        }
    }

    fn is_unencrypted(&self) -> bool {
        self.url.scheme() == "http"
    }

    fn client(&self) -> Result<Client, PortError> {
        let roots = self.trusted_roots().map_err(PortError::unavailable)?;
        let mut builder = http_client::builder(roots).map_err(PortError::rejected)?;
        if self.is_unencrypted() {
            builder = builder.no_proxy();
        }
        builder.build().map_err(PortError::rejected)
    }

    async fn get(&self) -> Result<String, PortError> {
        let this = self.clone();
        // Reading the system's certificates blocks.
        let client = tokio::task::spawn_blocking(move || this.client()).await;
        let client = client.map_err(PortError::unavailable)??;
        let request = client.get(self.url.clone()).header(ACCEPT, "application/json");
        // The error omits the URL, because the log line has it as a field.
        let response = request.send().await.map_err(|e| PortError::unavailable(e.without_url()))?;
        if response.status() != StatusCode::OK {
            return Err(PortError::unavailable(format!("HTTP status {}", response.status())));
        }
        let body = Limited::new(Body::from(response), Self::MAX_BYTES).collect().await;
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

fn parse_url(url: &str) -> Result<Url, &'static str> {
    let url: Url = url.parse().map_err(|_| "it is not a valid URL")?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it must not contain a user name or password, because it is logged");
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        "http" => Err("it must begin with https://; http:// is for loopback only, because an \
                             attacker on the network could replace the keys"),
        _ => Err("it must begin with https://"),
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, InvalidJwtSettings> {
    const MAX_BYTES: u64 = 1024 * 1024;
    let read = file_access::read(file, MAX_BYTES);
    let (pem, _) = read.map_err(|problem| InvalidJwtSettings::File(problem.to_string()))?;
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
        assert!(error_with(file.path()).is_some(), "a file without certificates");
        assert!(error_with(Path::new("nowhere.pem")).is_some(), "a missing file");
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
