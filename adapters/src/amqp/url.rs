use std::fmt;

use lapin::uri::AMQPUri;

/// The broker's address and credentials: `amqp://user:password@host:port/vhost`, or `amqps://` for TLS.
///
/// Unlike in RabbitMQ's URI specification, an empty virtual host (`amqp://host/`) means the default one,
/// `/`: many write it so, and virtual hosts without a name are not used in practice. Neither `Debug` nor
/// `Display` shows the password.
#[derive(Clone, PartialEq, Eq)]
pub struct AmqpUrl(AMQPUri);

/// The text is not an [`AmqpUrl`]. The error does not quote the text, which may contain a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an AMQP URL has the form amqp://user:password@host:port/vhost, or amqps:// for TLS; write the \
     virtual host / as %2f, and percent-encode special characters of the password"
)]
pub struct InvalidAmqpUrl;

impl AmqpUrl {
    /// Parses a URL. Of RabbitMQ's query parameters, `heartbeat` (seconds), `frame_max`, `channel_max` and
    /// `auth_mechanism` (`plain`, `external`, …) are supported.
    pub fn parse(raw: &str) -> Result<Self, InvalidAmqpUrl> {
        let rest = raw
            .strip_prefix("amqp://")
            .or_else(|| raw.strip_prefix("amqps://"))
            .ok_or(InvalidAmqpUrl)?;
        let mut uri: AMQPUri = raw.parse().map_err(|_| InvalidAmqpUrl)?;
        // The parser replaces an invalid host with `localhost`.
        uri.authority.host = host(rest).ok_or(InvalidAmqpUrl)?;
        if uri.vhost.is_empty() {
            "/".clone_into(&mut uri.vhost);
        }
        // AMQP encodes it as a short string.
        if uri.vhost.len() > usize::from(u8::MAX) {
            return Err(InvalidAmqpUrl);
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

/// The host of `user:password@host:port/vhost?query`, an IPv6 address without its brackets.
fn host(rest: &str) -> Option<String> {
    let authority = rest.split(['/', '?', '#']).next()?;
    let address = authority.rsplit_once('@').map_or(authority, |(_, it)| it);
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
            assert_eq!(AmqpUrl::parse(raw), Err(InvalidAmqpUrl), "{raw}");
        }
        let too_long = format!("amqp://h/{}", "v".repeat(256));
        assert_eq!(AmqpUrl::parse(&too_long), Err(InvalidAmqpUrl));
    }
}
