//! The client for HTTP requests to other servers.

use rustls::{ClientConfig, RootCertStore};

/// Prepares a client that verifies servers against `roots`. With no roots, it can only be used for `http://`.
///
/// It uses the proxies of the environment (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, except for the hosts in
/// `NO_PROXY`). It follows no redirects and has no timeout.
pub fn builder(roots: RootCertStore) -> Result<reqwest::ClientBuilder, rustls::Error> {
    // All TLS connections use `ring` for cryptography. The provider is set explicitly, because the default
    // depends on the crates that are linked.
    let provider = rustls::crypto::ring::default_provider();
    let tls = ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("belfry/", env!("CARGO_PKG_VERSION"))))
}

/// The root certificates of the system, which may have none. Reads files and blocks.
pub fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}
