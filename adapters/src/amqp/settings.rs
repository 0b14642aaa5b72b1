use std::time::Duration;

use lapin::ConnectionProperties;
use lapin::uri::AMQPUri;

use super::AmqpUrl;

/// How the broker is reached.
#[derive(Debug, Clone)]
pub struct AmqpSettings {
    /// Where it is.
    pub url: AmqpUrl,
    /// How connections are called in RabbitMQ's list of them; what each is for is added.
    pub connection_name: String,
    /// How often either side shows that it is alive, where the URL does not say. A peer that is silent
    /// for twice as long is given up. RabbitMQ advises 5 to 20 seconds.
    pub heartbeat: Duration,
    /// How long connecting, sign-in included, may take.
    pub connect_timeout: Duration,
    /// How long a broker may take to confirm what was published.
    pub confirm_timeout: Duration,
    /// The pause before the first attempt to connect again; each next one is twice as long…
    pub shortest_pause: Duration,
    /// …up to this.
    pub longest_pause: Duration,
}

impl AmqpSettings {
    /// The largest frame, as RabbitMQ's default has it. Asked for from the start, lapin's buffers
    /// (32 frames in each direction) are made once, and the system gives memory only for what is used
    /// of them: as they are written through in turn, that is 8 MiB for a connection after some minutes.
    /// Not smaller all the same: the headers of a message are one frame (AMQP 0-9-1, section 4.2.6.1),
    /// and those of a producer may be as large as the broker lets them.
    const FRAME_MAX: u32 = 131_072;

    /// The usual settings for the broker at that URL.
    pub fn new(url: AmqpUrl) -> Self {
        Self {
            url,
            connection_name: "belfry".to_owned(),
            heartbeat: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            confirm_timeout: Duration::from_secs(30),
            shortest_pause: Duration::from_millis(200),
            longest_pause: Duration::from_secs(10),
        }
    }

    pub(super) fn uri(&self) -> AMQPUri {
        let mut uri = self.url.uri().clone();
        let heartbeat = u16::try_from(self.heartbeat.as_secs()).unwrap_or(u16::MAX);
        uri.query.heartbeat.get_or_insert(heartbeat);
        uri.query.frame_max.get_or_insert(Self::FRAME_MAX);
        uri
    }

    pub(super) fn properties(&self, role: &str) -> ConnectionProperties {
        let name = format!("{} {role}", self.connection_name);
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
    fn what_the_url_says_comes_before_the_settings() {
        let heartbeat = |url| {
            let settings = AmqpSettings::new(AmqpUrl::parse(url).unwrap());
            settings.uri().query.heartbeat
        };
        assert_eq!(heartbeat("amqp://h"), Some(10));
        assert_eq!(heartbeat("amqp://h?heartbeat=3"), Some(3));
    }
}
