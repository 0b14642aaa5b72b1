//! Where the app listens, and what holds for all that comes and goes there.

use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use belfry_adapters::transport::{
    ConnectionLimits, ListenAddress, Listener, Server, ServerSettings, TcpSettings, Tls, TlsFiles,
    TrustedProxies,
};
use http::header::{CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderName, HeaderValue};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower_http::set_header::SetResponseHeaderLayer;
use tracing::warn;

use super::settings::unless_zero;
use crate::config::{Config, Http};

/// Binds the public and the operators' address.
pub(super) async fn open(config: &Config) -> anyhow::Result<(Server, Server)> {
    let settings = server_settings(config)?;
    let http = bind(config.http.listen.clone(), "http.listen", settings).await?;
    let address = config.admin.listen;
    let admin = bind(address.into(), "admin.listen", ServerSettings::default()).await?;
    if !address.ip().is_loopback() {
        warn!(
            "admin.listen is {address}: whoever reaches it sees metrics and /debug, without a token"
        );
    }
    Ok((http, admin))
}

/// What to say of it on standard output.
pub(super) fn greeting(
    config: &Config,
    http: &Server,
    admin: &Server,
) -> anyhow::Result<Vec<String>> {
    Ok(vec![
        format!("listening on {}", public_url(&config.http, &http.address()?)),
        format!("admin on {}", url("http", &admin.address()?)),
    ])
}

/// Serves until the connections are to end; requests under way are finished.
pub(super) fn serve(server: Server, router: Router, end: &CancellationToken) -> JoinHandle<()> {
    tokio::spawn(server.serve(router, end.clone()))
}

async fn bind(
    address: ListenAddress,
    setting: &str,
    settings: ServerSettings,
) -> anyhow::Result<Server> {
    let cannot = || format!("{setting}: cannot listen on {address}");
    let listener = Listener::bind(address.clone(), TcpSettings::default());
    let listener = listener.await.with_context(cannot)?;
    Server::new(listener, settings).with_context(cannot)
}

fn server_settings(config: &Config) -> anyhow::Result<ServerSettings> {
    let proxies = config.http.trusted_proxies.iter().map(String::as_str);
    let files = config.http.tls.certificate_file.clone().zip(config.http.tls.key_file.clone());
    let tls = files.map(|(certificate, key)| Tls::open(TlsFiles { certificate, key }));
    Ok(ServerSettings {
        header_timeout: config.http.header_timeout,
        keep_alive: config.http.keep_alive,
        limits: ConnectionLimits {
            connections: unless_zero(config.limits.connections),
            per_address: unless_zero(config.limits.connections_per_address),
        },
        trusted_proxies: TrustedProxies::parse(proxies).context("setting http.trusted_proxies")?,
        tls: tls.transpose().context("settings in [http.tls]")?.map(Arc::new),
    })
}

/// Where clients find the public routes. The URL of a Unix socket has no path, so that the base path is
/// named beside it.
fn public_url(http: &Http, address: &ListenAddress) -> String {
    let (url, base_path) = (url(http.scheme(), address), &http.base_path);
    match address {
        ListenAddress::Unix(_) if !base_path.is_root() => format!("{url} under {base_path}"),
        _ => format!("{url}{base_path}"),
    }
}

/// What a browser or another client would be told.
pub(super) fn url(scheme: &str, address: &ListenAddress) -> String {
    match address {
        ListenAddress::Tcp(address) => format!("{scheme}://{address}"),
        ListenAddress::Unix(_) => address.to_string(),
    }
}

/// What every answer tells browsers, unless it says otherwise itself: to take it for what it is said to
/// be, to tell nobody where they were, and that it is no page, nor one to be shown within another's.
pub(super) fn with_safe_headers(router: Router) -> Router {
    let unless_set = |name: HeaderName, value| {
        SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
    };
    router
        .layer(unless_set(X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(unless_set(REFERRER_POLICY, "no-referrer"))
        .layer(unless_set(CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"))
}
