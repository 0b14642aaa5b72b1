use std::fmt;

use lapin::uri::AMQPUri;

/// Where the broker is and who asks: `amqp://user:password@host:port/vhost`, or `amqps://` for TLS.
///
/// Beside what RabbitMQ's URI specification says, an empty virtual host (`amqp://host/`) is taken for
/// the default one, `/`: nobody has one without a name, and many write it so. Neither `Debug` nor
/// `Display` shows the password.
#[derive(Clone, PartialEq, Eq)]
pub struct AmqpUrl(AMQPUri);

/// A text is not an [`AmqpUrl`]. Says nothing of the text: there may be a password in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an AMQP URL reads amqp://user:password@host:port/vhost, or amqps:// for TLS; the virtual host / \
     is written %2f, and so are special characters of the password"
)]
pub struct InvalidAmqpUrl;

impl AmqpUrl {
    /// Reads a URL. The parameters `heartbeat` (seconds), `frame_max`, `channel_max` and
    /// `auth_mechanism` (`plain`, `external`, …) of RabbitMQ's query parameters are understood.
    pub fn parse(raw: &str) -> Result<Self, InvalidAmqpUrl> {
        let rest = raw
            .strip_prefix("amqp://")
            .or_else(|| raw.strip_prefix("amqps://"))
            .ok_or(InvalidAmqpUrl)?;
        let mut uri: AMQPUri = raw.parse().map_err(|_| InvalidAmqpUrl)?;
        // The parser takes what it cannot use as a host for `localhost`.
        uri.authority.host = host(rest).ok_or(InvalidAmqpUrl)?;
        if uri.vhost.is_empty() {
            "/".clone_into(&mut uri.vhost);
        }
        // AMQP carries it in a byte's length.
        if uri.vhost.len() > usize::from(u8::MAX) {
            return Err(InvalidAmqpUrl);
        }
        Ok(Self(uri))
    }

    /// Who asks.
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

    fn shown(raw: &str) -> String {
        AmqpUrl::parse(raw).unwrap().to_string()
    }

    #[test]
    fn a_url_names_host_user_and_virtual_host() {
        for (raw, expected) in [
            ("amqp://h", "amqp://guest@h:5672 (virtual host /)"),
            ("amqp://h/", "amqp://guest@h:5672 (virtual host /)"),
            ("amqp://h/%2f", "amqp://guest@h:5672 (virtual host /)"),
            ("amqp://u:p@h:1/shop", "amqp://u@h:1 (virtual host shop)"),
            ("amqps://u:p%40q@h/a%2Fb?heartbeat=7", "amqps://u@h:5671 (virtual host a/b)"),
            ("amqp://127.0.0.1:5673/x", "amqp://guest@127.0.0.1:5673 (virtual host x)"),
            ("amqp://u:p@[::1]:5672", "amqp://u@::1:5672 (virtual host /)"),
        ] {
            assert_eq!(shown(raw), expected, "{raw}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let url = AmqpUrl::parse("amqp://u:sesame@h/%2f").unwrap();
        assert_eq!(url.uri().authority.userinfo.password, "sesame");
        assert!(!format!("{url} {url:?}").contains("sesame"));
        let error = AmqpUrl::parse("http://u:sesame@h/").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("sesame"));
    }

    #[test]
    fn what_is_no_url_of_a_broker_is_refused() {
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
        let endless = format!("amqp://h/{}", "v".repeat(256));
        assert_eq!(AmqpUrl::parse(&endless), Err(InvalidAmqpUrl));
    }
}
