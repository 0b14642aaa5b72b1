//! The check that no flag contains a secret.

use super::error::BadSettings;
use super::url_parts::may_have_password;

/// Rejects a secret in a flag: every user of the machine can see the arguments of a process (`ps`), and
/// shells and process managers store them.
pub(super) fn check(path: &str, value: &str) -> Result<(), BadSettings> {
    let problem = match path {
        "auth.hs256_secret" if !value.trim().is_empty() => {
            "a flag must not contain a secret, because other users can see it (ps); \
             use auth.hs256_secret_files, the variable BELFRY_AUTH__HS256_SECRET or a settings file"
        }
        "database.url" if may_have_password(value) => {
            "a flag must not contain a password, because other users can see it (ps); \
             use the variable BELFRY_DATABASE__URL or a settings file"
        }
        "amqp.url" if may_have_password(value) => {
            "a flag must not contain a password, because other users can see it (ps); \
             use the variable BELFRY_AMQP__URL or a settings file"
        }
        _ => return Ok(()),
    };
    Err(BadSettings::new(format!("{path}: {problem}")))
}
