//! Settings that a flag must not have.

use super::error::BadSettings;
use super::url_parts::UrlParts;

/// Rejects a secret in a flag: every user of the machine can see the arguments of a process (`ps`), and
/// shells and process managers store them.
pub(super) fn check(path: &str, value: &str) -> Result<(), BadSettings> {
    let problem = match path {
        "auth.hs256_secret" if !value.trim().is_empty() => {
            "a flag must not contain a secret, because other users can see it (ps); \
             use auth.hs256_secret_files, the variable BELFRY_AUTH__HS256_SECRET or a settings file"
        }
        "database.url" if has_password(value) => {
            "a flag must not contain a password, because other users can see it (ps); \
             use the variable BELFRY_DATABASE__URL or a settings file"
        }
        "amqp.url" if has_password(value) => {
            "a flag must not contain a password, because other users can see it (ps); \
             use the variable BELFRY_AMQP__URL or a settings file"
        }
        _ => return Ok(()),
    };
    Err(BadSettings::new(format!("{path}: {problem}")))
}

fn has_password(url: &str) -> bool {
    UrlParts::parse(url).is_some_and(|url| url.has_password())
}
