use std::path::PathBuf;
use std::time::Duration;

use belfry_adapters::inbound::rest::CookieName;
use belfry_application::access::Access;
use serde::Deserialize;

use super::error::{BadSettings, longer_than_zero};
use super::values::{self, Secret};

/// `auth.*`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents the settings")]
pub struct Auth {
    #[serde(default)]
    pub hs256_secret: Option<Secret>,
    #[serde(default, deserialize_with = "values::list")]
    pub hs256_secret_files: Vec<PathBuf>,
    #[serde(default, deserialize_with = "values::list")]
    pub public_key_file: Vec<PathBuf>,
    #[serde(default, deserialize_with = "values::list")]
    pub jwks_file: Vec<PathBuf>,
    #[serde(default)]
    pub jwks_url: Option<String>,
    #[serde(default)]
    pub jwks_ca_file: Option<PathBuf>,
    #[serde(deserialize_with = "values::duration")]
    pub jwks_refresh: Duration,
    #[serde(deserialize_with = "values::duration")]
    pub jwks_cooldown: Duration,
    #[serde(deserialize_with = "values::duration_or_unlimited")]
    pub jwks_max_stale: Option<Duration>,
    #[serde(deserialize_with = "values::duration")]
    pub jwks_timeout: Duration,
    #[serde(deserialize_with = "values::list")]
    pub algorithms: Vec<String>,
    #[serde(default)]
    pub issuer: Option<String>,
    #[serde(default, deserialize_with = "values::list")]
    pub audience: Vec<String>,
    #[serde(deserialize_with = "values::duration")]
    pub leeway: Duration,
    #[serde(default, deserialize_with = "values::optional_duration")]
    pub max_lifetime: Option<Duration>,
    #[serde(deserialize_with = "values::list")]
    pub user_claim: Vec<String>,
    #[serde(deserialize_with = "values::or_text")]
    pub require_exp: bool,
    #[serde(deserialize_with = "values::duration")]
    pub max_session: Duration,
    #[serde(default, deserialize_with = "values::optional_text")]
    pub cookie: Option<CookieName>,
    pub scope_claim: String,
    pub scopes: RequiredScopes,
    pub development_key_file: PathBuf,
}

/// `auth.scopes.*`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents the settings")]
pub struct RequiredScopes {
    pub read: String,
    pub change: String,
    pub create: String,
    pub revoke: String,
    pub erase: String,
}

/// The settings that contain or name a key.
pub(super) const KEY_SETTINGS: [&str; 5] = [
    "auth.hs256_secret",
    "auth.hs256_secret_files",
    "auth.public_key_file",
    "auth.jwks_file",
    "auth.jwks_url",
];

impl Auth {
    /// Whether no key is set, so that Belfry uses a development key.
    pub fn is_development(&self) -> bool {
        self.hs256_secret.is_none()
            && self.hs256_secret_files.is_empty()
            && self.public_key_file.is_empty()
            && self.jwks_file.is_empty()
            && self.jwks_url.is_none()
    }

    /// The minimum of `retention.revocations`: the longest time between a revocation and the expiry of a token
    /// that it revokes. This is the maximum lifetime, plus the leeway once for the time of issue and once for
    /// the expiry. `None` if tokens have no maximum lifetime.
    pub(super) fn min_revocation_retention(&self) -> Option<Duration> {
        Some(self.max_lifetime?.saturating_add(self.leeway.saturating_mul(2)))
    }

    pub(super) fn check(&self) -> Result<(), BadSettings> {
        if self.jwks_ca_file.is_some() && self.jwks_url.is_none() {
            return Err(BadSettings::new("auth.jwks_ca_file is set, but auth.jwks_url is not"));
        }
        longer_than_zero([
            ("auth.jwks_refresh", self.jwks_refresh),
            ("auth.jwks_cooldown", self.jwks_cooldown),
            ("auth.jwks_timeout", self.jwks_timeout),
            ("auth.max_session", self.max_session),
        ])?;
        if self.jwks_max_stale.is_some_and(|age| age.is_zero()) {
            return Err(BadSettings::new(
                "auth.jwks_max_stale must be longer than 0s; \"unlimited\" means without limit",
            ));
        }
        if self.max_lifetime.is_some_and(|longest| longest.is_zero()) {
            return Err(BadSettings::new(
                "auth.max_lifetime must be longer than 0s; leave it unset for no limit",
            ));
        }
        if self.user_claim.is_empty() {
            return Err(BadSettings::new("auth.user_claim must name at least one claim"));
        }
        if self.development_key_file.as_os_str().is_empty() {
            return Err(BadSettings::new("auth.development_key_file must not be empty"));
        }
        let RequiredScopes { create, revoke, erase, .. } = &self.scopes;
        if [create, revoke, erase].iter().any(|scope| scope.is_empty()) {
            return Err(BadSettings::new(
                "auth.scopes.create, auth.scopes.revoke and auth.scopes.erase must not be empty: \
                 they protect operations on every user",
            ));
        }
        Ok(())
    }
}

impl From<&RequiredScopes> for Access {
    fn from(scopes: &RequiredScopes) -> Self {
        let unless_empty = |scope: &str| (!scope.is_empty()).then(|| scope.into());
        Self {
            read: unless_empty(&scopes.read),
            change: unless_empty(&scopes.change),
            create: scopes.create.as_str().into(),
            revoke: scopes.revoke.as_str().into(),
            erase: scopes.erase.as_str().into(),
        }
    }
}
