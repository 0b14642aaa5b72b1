//! Settings and files that work but put the deployment at risk, logged at start.

use std::fs::File;
use std::path::Path;

use belfry_adapters::file_access::FileAccess;
use tracing::warn;

use crate::config::Config;

/// Logs each risk once.
pub(crate) fn log(config: &Config) {
    for file in sensitive_files(config) {
        file.log_access();
    }
    let is_postgres = !config.database.url.reveal().starts_with("sqlite:");
    if config.auth.is_development() && (is_postgres || config.amqp.url.is_some()) {
        warn!("development key in use with PostgreSQL or RabbitMQ; set a key in [auth]");
    }
    if config.http.allows_any_origin() {
        warn!("pages of any origin may connect; list your origins in http.cors_origins");
    }
    if !config.auth.require_exp {
        let max_session = config.auth.max_session;
        warn!(
            ?max_session,
            "tokens without exp are accepted; a leaked one is valid until it is revoked"
        );
    }
}

/// A file with secrets, keys, certificates or settings.
struct SensitiveFile<'a> {
    setting: &'static str,
    path: &'a Path,
    is_secret: bool,
}

fn sensitive_files(config: &Config) -> impl Iterator<Item = SensitiveFile<'_>> {
    let (auth, tls) = (&config.auth, &config.http.tls);
    let secrets =
        auth.hs256_secret_files.iter().map(|path| ("auth.hs256_secret_files", path, true));
    let public_keys = auth.public_key_file.iter().map(|path| ("auth.public_key_file", path, false));
    let jwks = auth.jwks_file.iter().map(|path| ("auth.jwks_file", path, false));
    let others = [
        ("--config", &config.settings_file, config.settings_file_has_secret),
        ("auth.jwks_ca_file", &auth.jwks_ca_file, false),
        ("http.tls.certificate_file", &tls.certificate_file, false),
        ("http.tls.key_file", &tls.key_file, true),
    ];
    let others = others
        .into_iter()
        .filter_map(|(setting, path, is_secret)| Some((setting, path.as_ref()?, is_secret)));
    let all = secrets.chain(public_keys).chain(jwks).chain(others);
    all.map(|(setting, path, is_secret)| SensitiveFile { setting, path, is_secret })
}

impl SensitiveFile<'_> {
    /// Logs a warning if every user can read a secret file, or if another user owns the file. Skips pipes, and files
    /// that cannot be opened: Belfry has read them before, so they are about to be replaced.
    fn log_access(&self) {
        let Self { setting, path, is_secret } = self;
        if !path.is_file() {
            return;
        }
        let Ok(access) = File::open(path).and_then(|file| FileAccess::of(&file)) else { return };
        let (file, mode) = (path.display(), format!("{:04o}", access.mode));
        if *is_secret && access.is_readable_by_everyone() {
            warn!(setting, %file, mode, "every user can read this secret file");
        }
        if access.is_foreign() {
            warn!(setting, %file, owner = access.owner, "file belongs to another user, who can change it");
        }
    }
}
