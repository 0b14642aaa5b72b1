//! What tokens are checked with: as set, and as it changes.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use belfry_adapters::inbound::rest::{Readiness, ReadinessCheck};
use belfry_adapters::outbound::jwt::{
    DevelopmentKey, InvalidJwtSettings, JwksSettings, JwtKey, JwtSettings, JwtVerifier, Secret,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::config::Auth;

/// How tokens are checked: as set, or with the development key, made where it is missing.
pub(crate) fn jwt_settings(auth: &Auth) -> anyhow::Result<JwtSettings> {
    let mut keys = Vec::new();
    if auth.is_development() {
        let key = DevelopmentKey::open(&auth.development_key_file);
        keys.push(key.context("setting auth.development_key_file")?.key());
    }
    for (setting, key) in set_keys(auth)? {
        key.check().with_context(|| format!("setting {setting}"))?;
        keys.push(key);
    }
    Ok(JwtSettings {
        keys,
        jwks: auth.jwks_url.as_deref().map(|url| jwks_settings(auth, url)).transpose()?,
        algorithms: auth.algorithms.clone(),
        issuer: auth.issuer.clone(),
        audiences: auth.audience.clone(),
        leeway: auth.leeway,
        user_claim: auth.user_claim.clone(),
        scope_claim: auth.scope_claim.clone(),
    })
}

/// The keys that are set, each with the name of its setting.
fn set_keys(auth: &Auth) -> anyhow::Result<Vec<(&'static str, JwtKey)>> {
    let mut keys = Vec::new();
    if let Some(secret) = &auth.hs256_secret {
        let secret =
            Secret::new(secret.reveal().as_bytes()).context("setting auth.hs256_secret")?;
        if secret.is_weak() {
            warn!(
                "auth.hs256_secret has fewer than {} bytes: it can be guessed from any one token",
                Secret::STRONG_BYTES
            );
        }
        keys.push(("auth.hs256_secret", JwtKey::Secret(secret)));
    }
    let files = auth.hs256_secret_files.iter().cloned().map(JwtKey::SecretFile);
    keys.extend(files.map(|key| ("auth.hs256_secret_files", key)));
    let files = auth.public_key_file.iter().cloned().map(JwtKey::PublicPemFile);
    keys.extend(files.map(|key| ("auth.public_key_file", key)));
    let files = auth.jwks_file.iter().cloned().map(JwtKey::JwksFile);
    keys.extend(files.map(|key| ("auth.jwks_file", key)));
    Ok(keys)
}

fn jwks_settings(auth: &Auth, url: &str) -> anyhow::Result<JwksSettings> {
    let settings = JwksSettings {
        url: url.to_owned(),
        ca_file: auth.jwks_ca_file.clone(),
        refresh: auth.jwks_refresh,
        cooldown: auth.jwks_cooldown,
        max_stale: auth.jwks_max_stale,
        timeout: auth.jwks_timeout,
    };
    let checked = settings.check().map_err(|problem| {
        let setting = match problem {
            InvalidJwtSettings::Url(_) => "auth.jwks_url",
            _ => "auth.jwks_ca_file",
        };
        anyhow::Error::new(problem).context(format!("setting {setting}"))
    });
    checked.map(|()| settings)
}

/// The keys of a running app.
pub(super) struct Keys {
    verifier: Arc<JwtVerifier>,
    known: ReadinessCheck,
}

impl Keys {
    /// Until they are kept there are none.
    pub(super) fn new(verifier: Arc<JwtVerifier>, readiness: &Readiness) -> Self {
        Self { verifier, known: readiness.register("keys") }
    }

    /// Keeps them up to date, and the check true to whether there are any, until told to stop.
    pub(super) async fn keep(self, reload: Arc<Notify>, stop: CancellationToken) {
        const EVERY: Duration = Duration::from_secs(1);
        let watch = async {
            loop {
                self.known.set(self.verifier.has_keys());
                if stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_none() {
                    return;
                }
            }
        };
        tokio::join!(self.verifier.run_key_refresh(&reload, &stop), watch);
    }
}
