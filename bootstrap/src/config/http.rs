use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use belfry_adapters::inbound::rest::{AllowedHeader, AllowedOrigin, BasePath, Cors, RestSettings};
use belfry_adapters::transport::{
    ConnectionLimits, ListenAddress, ServerSettings, Tls, TlsFiles, TrustedProxies,
};
use serde::Deserialize;

use super::error::{BadSettings, at_least_one, longer_than_zero};
use super::values;

/// `http.*`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents the settings")]
pub struct Http {
    #[serde(deserialize_with = "values::text")]
    pub listen: ListenAddress,
    #[serde(deserialize_with = "values::text")]
    pub base_path: BasePath,
    #[serde(deserialize_with = "values::parsed_list")]
    pub cors_origins: Vec<AllowedOrigin>,
    #[serde(deserialize_with = "values::or_text")]
    pub cors_credentials: bool,
    #[serde(deserialize_with = "values::parsed_list")]
    pub cors_headers: Vec<AllowedHeader>,
    #[serde(deserialize_with = "values::list")]
    pub trusted_proxies: Vec<String>,
    #[serde(deserialize_with = "values::duration")]
    pub header_timeout: Duration,
    #[serde(deserialize_with = "values::duration")]
    pub keep_alive: Duration,
    #[serde(deserialize_with = "values::duration")]
    pub request_timeout: Duration,
    #[serde(deserialize_with = "values::or_text")]
    pub max_body: usize,
    #[serde(default)]
    pub tls: HttpTls,
}

/// `http.tls.*`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents the settings")]
pub struct HttpTls {
    #[serde(default)]
    pub certificate_file: Option<PathBuf>,
    #[serde(default)]
    pub key_file: Option<PathBuf>,
}

impl Http {
    pub(super) fn check(&self) -> Result<(), BadSettings> {
        if self.tls.certificate_file.is_some() != self.tls.key_file.is_some() {
            return Err(BadSettings::new(
                "http.tls.certificate_file and http.tls.key_file must be set together",
            ));
        }
        longer_than_zero([
            ("http.header_timeout", self.header_timeout),
            ("http.request_timeout", self.request_timeout),
        ])?;
        if self.keep_alive.is_zero() {
            return Err(BadSettings::new(
                "http.keep_alive must be longer than 0s, and longer than the idle timeout of a proxy in front",
            ));
        }
        at_least_one([("http.max_body", self.max_body as u64)])
    }

    /// Whether pages of any origin may call Belfry.
    pub fn allows_any_origin(&self) -> bool {
        self.cors_origins.iter().any(AllowedOrigin::is_any)
    }

    /// The scheme of the public URLs.
    pub fn scheme(&self) -> &'static str {
        if self.tls.certificate_file.is_some() { "https" } else { "http" }
    }

    /// Settings of the public listener. Reads the TLS files.
    pub fn server_settings(&self, limits: ConnectionLimits) -> anyhow::Result<ServerSettings> {
        let proxies = self.trusted_proxies.iter().map(String::as_str);
        let files = self.tls.certificate_file.clone().zip(self.tls.key_file.clone());
        let tls = files.map(|(certificate, key)| Tls::open(TlsFiles { certificate, key }));
        Ok(ServerSettings {
            header_timeout: self.header_timeout,
            keep_alive: self.keep_alive,
            limits,
            trusted_proxies: TrustedProxies::parse(proxies)
                .context("setting http.trusted_proxies")?,
            tls: tls.transpose().context("settings in [http.tls]")?.map(Arc::new),
        })
    }

    /// Settings of the REST routes.
    pub fn rest_settings(&self) -> RestSettings {
        RestSettings {
            max_body: self.max_body,
            request_timeout: self.request_timeout,
            cors: Cors {
                origins: self.cors_origins.clone(),
                credentials: self.cors_credentials,
                headers: self.cors_headers.clone(),
            },
            base_path: self.base_path.clone(),
        }
    }
}
