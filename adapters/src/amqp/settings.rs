use std::time::Duration;

use lapin::ConnectionProperties;
use lapin::uri::AMQPUri;

use super::missing_right::MissingRights;
use super::tls::AmqpTlsFiles;
use super::url::AmqpUrl;

/// How to connect to the broker.
#[derive(Debug, Clone)]
pub struct AmqpSettings {
    /// The broker's address and credentials.
    pub url: AmqpUrl,
    /// For `amqps://` URLs.
    pub tls: AmqpTlsFiles,
    /// The first part of each connection's name in RabbitMQ. The second part is the connection's purpose, such
    /// as `ingest`.
    pub connection_name: String,
    /// The heartbeat interval, unless the URL sets one. Either side drops the connection after two
    /// intervals of silence. RabbitMQ recommends 5 to 20 seconds.
    pub heartbeat: Duration,
    /// How long connecting may take, authentication included.
    pub connect_timeout: Duration,
    /// How long the broker may take to confirm a publish.
    pub confirm_timeout: Duration,
    /// The delay before the first reconnect. It doubles with each failure, up to `max_backoff`.
    pub initial_backoff: Duration,
    /// The maximum delay before a reconnect.
    pub max_backoff: Duration,
    /// The tasks and channels that use these settings and lack a right at the broker.
    pub missing_rights: MissingRights,
}

impl AmqpSettings {
    /// The largest frame in bytes: RabbitMQ's default.
    ///
    /// Belfry requests this size explicitly, so that lapin allocates its buffers only once. lapin has a ring
    /// buffer of 32 frames for each direction. After some minutes, all pages of both buffers are in use, 8 MiB
    /// per connection. A smaller frame would save memory, but would be too small for some messages: all headers
    /// of a message are in one frame (AMQP 0-9-1, section 4.2.6.1), and a producer may fill a frame of the
    /// broker's limit with them.
    const FRAME_MAX: u32 = 131_072;

    /// The default settings for the broker at that URL.
    pub fn new(url: AmqpUrl) -> Self {
        Self {
            url,
            tls: AmqpTlsFiles::default(),
            connection_name: "belfry".to_owned(),
            heartbeat: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            confirm_timeout: Duration::from_secs(30),
            initial_backoff: Duration::from_millis(200),
            max_backoff: Duration::from_secs(10),
            missing_rights: MissingRights::default(),
        }
    }

    /// The URL for lapin. Parameters of the URL take precedence over these settings.
    pub(super) fn uri(&self) -> AMQPUri {
        let mut uri = self.url.uri().clone();
        let heartbeat = u16::try_from(self.heartbeat.as_secs()).unwrap_or(u16::MAX);
        uri.query.heartbeat.get_or_insert(heartbeat);
        uri.query.frame_max.get_or_insert(Self::FRAME_MAX);
        uri
    }

    pub(super) fn properties(&self, purpose: &str) -> ConnectionProperties {
        let name = format!("{} {purpose}", self.connection_name);
        ConnectionProperties::default()
            .with_connection_name(name.into())
            .with_client_property("product".into(), "Belfry".into())
            .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeat_in_the_url_overrides_the_setting() {
        let heartbeat = |url| {
            let settings = AmqpSettings::new(AmqpUrl::parse(url).unwrap());
            settings.uri().query.heartbeat
        };
        assert_eq!(heartbeat("amqp://h"), Some(10));
        assert_eq!(heartbeat("amqp://h?heartbeat=3"), Some(3));
    }
}
