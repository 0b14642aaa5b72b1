use std::fmt;

use lapin::uri::AMQPUri;

/// The broker's address and credentials: `amqp://user:password@host:port/vhost`, or `amqps://` for TLS.
///
/// An empty virtual host (`amqp://host/`) means the default one, `/`, which many users expect. In RabbitMQ's URI
/// specification it means a virtual host with an empty name, but such virtual hosts are not used in practice.
/// Neither `Debug` nor `Display` shows the password.
#[derive(Clone, PartialEq, Eq)]
pub struct AmqpUrl(AMQPUri);

/// The text is not an [`AmqpUrl`]. The error does not quote the text, which may contain a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAmqpUrl {
    /// The text does not have the form of an AMQP URL, or a part of it is invalid.
    #[error(
        "an AMQP URL has the form amqp://user:password@host:port/vhost, or amqps:// for TLS; write the \
         virtual host / as %2f, and percent-encode special characters of the password"
    )]
    Malformed,
    /// A query parameter that Belfry does not know. Contains its name only, because its value may be a secret.
    #[error(
        "unknown parameter {0:?} in the AMQP URL; the parameters are heartbeat, frame_max, channel_max \
         and auth_mechanism (for certificates, set amqp.ca_file, amqp.client_certificate_file and \
         amqp.client_key_file)"
    )]
    UnknownParameter(String),
}

impl AmqpUrl {
    /// Parses a URL. It supports these of RabbitMQ's query parameters: `heartbeat` (seconds), `frame_max`,
    /// `channel_max` and `auth_mechanism` (`plain`, `external`, …). Any other parameter is an error.
    pub fn parse(raw: &str) -> Result<Self, InvalidAmqpUrl> {
        let after_scheme = raw
            .strip_prefix("amqp://")
            .or_else(|| raw.strip_prefix("amqps://"))
            .ok_or(InvalidAmqpUrl::Malformed)?;
        let mut uri: AMQPUri = raw.parse().map_err(|_| InvalidAmqpUrl::Malformed)?;
        check_parameters(after_scheme)?;
        // The parser replaces an empty host or an IPv6 address with `localhost`.
        uri.authority.host = host(after_scheme).ok_or(InvalidAmqpUrl::Malformed)?;
        if uri.vhost.is_empty() {
            "/".clone_into(&mut uri.vhost);
        }
        // AMQP encodes the virtual host as a short string: at most 255 bytes.
        if uri.vhost.len() > usize::from(u8::MAX) {
            return Err(InvalidAmqpUrl::Malformed);
        }
        Ok(Self(uri))
    }

    /// The user name to authenticate with.
    pub(crate) fn user(&self) -> &str {
        &self.0.authority.userinfo.username
    }

    pub(super) fn uri(&self) -> &AMQPUri {
        &self.0
    }
}

const PARAMETERS: [&str; 4] = ["heartbeat", "frame_max", "channel_max", "auth_mechanism"];

/// How many characters of an unknown parameter's name the error quotes.
const MAX_QUOTED_CHARS: usize = 40;

/// Rejects unknown parameters, which the parser ignores.
fn check_parameters(after_scheme: &str) -> Result<(), InvalidAmqpUrl> {
    let without_fragment = after_scheme.split('#').next().unwrap_or_default();
    let Some((_, query)) = without_fragment.split_once('?') else { return Ok(()) };
    let names = query.split('&').map(|pair| pair.split('=').next().unwrap_or_default());
    match names.filter(|name| !name.is_empty()).find(|name| !PARAMETERS.contains(name)) {
        Some(unknown) => {
            let name = unknown.chars().take(MAX_QUOTED_CHARS).collect();
            Err(InvalidAmqpUrl::UnknownParameter(name))
        }
        None => Ok(()),
    }
}

/// The host of `user:password@host:port/vhost?query`. An IPv6 address is returned without its brackets.
fn host(after_scheme: &str) -> Option<String> {
    let authority = after_scheme.split(['/', '?', '#']).next()?;
    let address = authority.rsplit_once('@').map_or(authority, |(_, address)| address);
    let host = match address.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']')?.0,
        None => address.split(':').next()?,
    };
    (!host.is_empty()).then(|| host.to_owned())
}

impl fmt::Display for AmqpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AMQPUri { scheme, authority, vhost, .. } = &self.0;
        let (user, host) = (&authority.userinfo.username, &authority.host);
        write!(f, "{scheme}://{user}@{host}:{} (virtual host {vhost})", authority.port)
    }
}

impl fmt::Debug for AmqpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AmqpUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn displayed(raw: &str) -> String {
        AmqpUrl::parse(raw).unwrap().to_string()
    }

    #[test]
    fn url_displays_host_user_and_virtual_host() {
        for (raw, expected) in [
            ("amqp://h", "amqp://guest@h:5672 (virtual host /)"),
            ("amqp://h/", "amqp://guest@h:5672 (virtual host /)"),
            ("amqp://h/%2f", "amqp://guest@h:5672 (virtual host /)"),
            ("amqp://u:p@h:1/shop", "amqp://u@h:1 (virtual host shop)"),
            ("amqps://u:p%40q@h/a%2Fb?heartbeat=7", "amqps://u@h:5671 (virtual host a/b)"),
            ("amqp://127.0.0.1:5673/x", "amqp://guest@127.0.0.1:5673 (virtual host x)"),
            ("amqp://u:p@[::1]:5672", "amqp://u@::1:5672 (virtual host /)"),
        ] {
            assert_eq!(displayed(raw), expected, "{raw}");
        }
    }

    #[test]
    fn password_is_never_displayed() {
        let url = AmqpUrl::parse("amqp://u:sesame@h/%2f").unwrap();
        assert_eq!(url.uri().authority.userinfo.password, "sesame");
        assert!(!format!("{url} {url:?}").contains("sesame"));
        let error = AmqpUrl::parse("http://u:sesame@h/").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("sesame"));
    }

    #[test]
    fn unknown_parameter_is_rejected_by_name() {
        for (raw, name) in [
            ("amqps://h/%2f?cacertfile=/ca.pem", "cacertfile"),
            ("amqps://h?heartbeat=5&password=sesame", "password"),
            ("amqp://h/%2f?Heartbeat=5", "Heartbeat"),
            ("amqp://h/%2f?connection_timeout=5", "connection_timeout"),
        ] {
            let error = AmqpUrl::parse(raw).unwrap_err();
            assert_eq!(error, InvalidAmqpUrl::UnknownParameter(name.to_owned()), "{raw}");
            assert!(!error.to_string().contains("sesame"));
        }
        for raw in ["amqp://h/%2f?", "amqp://h/?heartbeat=5&frame_max=131072&channel_max=9&"] {
            assert!(AmqpUrl::parse(raw).is_ok(), "{raw}");
        }
    }

    #[test]
    fn invalid_urls_are_rejected() {
        for raw in [
            "",
            "localhost",
            "localhost:5672",
            "http://localhost",
            "amqp:localhost",
            "amqp://",
            "amqp://:5672/",
            "amqp://u:p@/",
            "amqp://h:port/",
            "amqp://h:70000/",
            "amqp://h/%ff",
            "amqp://h/%2f?heartbeat=often",
        ] {
            assert_eq!(AmqpUrl::parse(raw), Err(InvalidAmqpUrl::Malformed), "{raw}");
        }
        let too_long = format!("amqp://h/{}", "v".repeat(256));
        assert_eq!(AmqpUrl::parse(&too_long), Err(InvalidAmqpUrl::Malformed));
    }
}
