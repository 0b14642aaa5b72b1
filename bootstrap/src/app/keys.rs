//! The keys that verify tokens.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use belfry_adapters::inbound::rest::ReadinessCheck;
use belfry_adapters::outbound::jwt::{
    DevelopmentKey, GuessableSecretPolicy, InvalidJwtSettings, JwksSettings, JwtKey, JwtSettings,
    JwtVerifier, Secret,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::context::AppContext;
use super::tasks::Task;
use crate::config::{Auth, Config};

/// The keys and rules of `[auth]`. Without a configured key this opens the development key, and creates it
/// if it does not exist. Secrets that can be guessed are rejected unless only this machine can connect.
pub(crate) fn jwt_settings(config: &Config) -> anyhow::Result<JwtSettings> {
    let auth = &config.auth;
    let is_local = config.http.listen.is_local();
    let guessable_secrets =
        if is_local { GuessableSecretPolicy::Warn } else { GuessableSecretPolicy::Reject };
    let mut keys = Vec::new();
    if auth.is_development() {
        let key = DevelopmentKey::open(&auth.development_key_file);
        keys.push(key.context("setting auth.development_key_file")?.to_jwt_key());
    }
    for (setting, key) in configured_keys(auth)? {
        key.check(guessable_secrets).with_context(|| format!("setting {setting}"))?;
        if let JwtKey::Secret(secret) = &key {
            warn_about_weak_secret(setting, secret);
        }
        keys.push(key);
    }
    Ok(JwtSettings {
        keys,
        guessable_secrets,
        jwks: auth.jwks_url.as_deref().map(|url| jwks_settings(auth, url)).transpose()?,
        algorithms: auth.algorithms.clone(),
        issuer: auth.issuer.clone(),
        audiences: auth.audience.clone(),
        leeway: auth.leeway,
        max_lifetime: auth.max_lifetime,
        user_claims: auth.user_claim.clone(),
        lifetime_without_exp: (!auth.require_exp).then_some(auth.max_session),
        scope_claim: auth.scope_claim.clone(),
    })
}

/// Each key with the name of its setting.
fn configured_keys(auth: &Auth) -> anyhow::Result<Vec<(&'static str, JwtKey)>> {
    let mut keys = Vec::new();
    if let Some(secret) = &auth.hs256_secret {
        let secret =
            Secret::new(secret.reveal().as_bytes()).context("setting auth.hs256_secret")?;
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

/// Logs the weaknesses of a secret from a setting. Secrets in files are checked where the files are read.
fn warn_about_weak_secret(setting: &str, secret: &Secret) {
    if secret.is_short() {
        warn!(
            setting,
            min_bytes = Secret::STRONG_BYTES,
            "HMAC secret is too short; it can be brute-forced from a single token"
        );
    }
    if let Some(reason) = secret.guessable() {
        warn!(setting, %reason, "HMAC secret can be guessed");
    }
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

/// The verifier, and the task that keeps its keys up to date.
pub(super) fn build(
    context: &AppContext,
    settings: &JwtSettings,
    reload: Arc<Notify>,
) -> anyhow::Result<(Arc<JwtVerifier>, Task)> {
    let verifier =
        JwtVerifier::new(settings, context.clock.clone()).context("settings in [auth]")?;
    let verifier = Arc::new(verifier);
    let check = context.readiness.register("keys");
    let update = update_keys(verifier.clone(), check, reload, context.stop.clone());
    Ok((verifier, Task::new("token keys", update)))
}

/// Reloads changed key files and fetches the JWKS at intervals, and does both at once on `reload`. `check` is up
/// while at least one key is known.
async fn update_keys(
    verifier: Arc<JwtVerifier>,
    check: ReadinessCheck,
    reload: Arc<Notify>,
    stop: CancellationToken,
) {
    const CHECK_INTERVAL: Duration = Duration::from_secs(1);
    let update_check = async {
        loop {
            if verifier.has_keys() {
                check.up();
            } else {
                check.down("there is no key to verify tokens with");
            }
            if stop.run_until_cancelled(tokio::time::sleep(CHECK_INTERVAL)).await.is_none() {
                return;
            }
        }
    };
    tokio::join!(verifier.run_key_refresh(&reload, &stop), update_check);
}
