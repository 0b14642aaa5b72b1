//! The rule for empty values: an empty value of an optional setting counts as unset.

use figment::value::{Dict, Value};

/// The optional settings: those that `config.default.toml` leaves out, and those whose default is empty.
pub(super) const OPTIONAL: [&str; 53] = [
    "http.base_path",
    "http.cors_origins",
    "http.cors_headers",
    "http.trusted_proxies",
    "http.tls.certificate_file",
    "http.tls.key_file",
    "admin.hosts",
    "amqp.url",
    "amqp.ca_file",
    "amqp.client_certificate_file",
    "amqp.client_key_file",
    "amqp.ingest.bind",
    "amqp.ingest.declare.arguments",
    "amqp.ingest.patterns.create",
    "amqp.ingest.patterns.mark_read",
    "amqp.ingest.patterns.mark_all_read",
    "amqp.ingest.patterns.delete",
    "amqp.ingest.fields.recipient",
    "amqp.ingest.fields.id",
    "amqp.ingest.fields.type",
    "amqp.ingest.fields.title",
    "amqp.ingest.fields.message",
    "amqp.ingest.fields.data",
    "amqp.ingest.fields.link",
    "amqp.ingest.fields.created_at",
    "amqp.ingest.fields.expires_at",
    "amqp.forward.events",
    "amqp.devices.exchange",
    "auth.hs256_secret",
    "auth.hs256_secret_files",
    "auth.public_key_file",
    "auth.jwks_file",
    "auth.jwks_url",
    "auth.jwks_ca_file",
    "auth.algorithms",
    "auth.issuer",
    "auth.audience",
    "auth.cookie",
    "auth.max_lifetime",
    "auth.scopes.read",
    "auth.scopes.change",
    "socket.namespaces",
    "socket.events.new",
    "socket.events.unread_count",
    "socket.events.marked_read",
    "socket.events.deleted",
    "socket.messages.mark_read",
    "socket.messages.mark_all_read",
    "socket.messages.unread_count",
    "socket.messages.delete",
    "socket.messages.list",
    "retention.notifications",
    "node.name",
];

/// Removes the empty values of optional settings from one source, so that a source below it, or the default,
/// applies. Returns the paths of the removed settings.
pub(super) fn remove_empty(settings: &mut Dict) -> Vec<&'static str> {
    OPTIONAL.into_iter().filter(|path| remove_if_empty(settings, path)).collect()
}

fn remove_if_empty(settings: &mut Dict, path: &str) -> bool {
    match path.split_once('.') {
        Some((section, path)) => match settings.get_mut(section) {
            Some(Value::Dict(_, section)) => remove_if_empty(section, path),
            _ => false,
        },
        None => settings.get(path).is_some_and(is_empty) && settings.remove(path).is_some(),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::String(_, text) => text.trim().is_empty(),
        Value::Array(_, entries) => entries.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::DEFAULT_FILE;
    use super::*;

    /// Paths that the default file leaves out (`# name = …`) or sets to an empty value.
    fn without_a_default() -> BTreeSet<String> {
        let mut section = "";
        let mut paths = BTreeSet::new();
        for line in DEFAULT_FILE.lines() {
            if let Some(name) = line.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
                section = name;
            }
            let (setting, is_left_out) = match line.strip_prefix("# ") {
                Some(setting) => (setting, true),
                None => (line, false),
            };
            if let Some((name, value)) = setting.split_once(" = ")
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
                && (is_left_out || ["\"\"", "[]"].contains(&value))
            {
                paths.insert(format!("{section}.{name}"));
            }
        }
        paths
    }

    #[test]
    fn optional_settings_are_those_without_a_default() {
        assert_eq!(BTreeSet::from(OPTIONAL.map(str::to_owned)), without_a_default());
    }
}
