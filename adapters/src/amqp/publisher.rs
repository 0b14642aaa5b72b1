use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::Event;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::broker_connection::BrokerConnection;
use super::confirm_channel::{ConfirmChannel, RequiredTopology};
use super::connection_error::ConnectionError;
use super::publisher_connection::PublisherConnection;
use super::reconnect::{ConnectedTask, ConnectionStatus, run_with_reconnect};
use super::settings::AmqpSettings;
use super::topology::Topology;

/// Publishes messages with publisher confirms.
///
/// All clones and channels share one connection. Nothing is consumed on it, because the broker may block
/// publishing connections.
#[derive(Clone)]
pub struct Publisher(Arc<PublisherConnection>);

impl Publisher {
    /// How often the connection's state is checked.
    const CHECK_INTERVAL: Duration = Duration::from_secs(1);

    /// Creates a publisher to the broker of `settings`. It connects once it is [run](Self::run).
    pub fn new(settings: AmqpSettings, topology: Topology) -> Self {
        Self(Arc::new(PublisherConnection::new(settings, topology)))
    }

    /// Keeps the connection open until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        run_with_reconnect(self, &self.0.settings, &stop).await;
    }

    /// Whether the publisher is connected and the broker does not block it.
    pub fn is_ready(&self) -> bool {
        self.0.get().is_ok()
    }

    pub(crate) fn channel(&self, required: RequiredTopology) -> ConfirmChannel {
        ConfirmChannel::new(self.0.clone(), required)
    }
}

impl ConnectedTask for Publisher {
    const NAME: &'static str = "publisher";

    /// No limit: the publisher receives only its own messages that the broker returns as unroutable.
    fn max_held_bytes(&self) -> usize {
        usize::MAX
    }

    async fn serve(
        &self,
        connection: &Arc<BrokerConnection>,
        status: &ConnectionStatus,
        stop: &CancellationToken,
    ) -> Result<(), ConnectionError> {
        let mut events = Box::pin(connection.events_listener());
        self.0.set(Some(connection.clone()));
        status.set_connected();
        let result = loop {
            if !connection.status().connected() {
                break Err(ConnectionError::Closed);
            }
            tokio::select! {
                () = stop.cancelled() => break Ok(()),
                () = sleep(Self::CHECK_INTERVAL) => {}
                () = connection.ended() => break Err(ConnectionError::Closed),
                event = events.next() => match event {
                    // After the error of a single channel, which is an event too, the connection stays open. The
                    // user of the channel gets that error.
                    Some(Event::Error(error)) if !connection.status().connected() => {
                        break Err(error.into());
                    }
                    Some(Event::ConnectionBlocked(reason)) => {
                        warn!(%reason, "RabbitMQ blocks publishers");
                    }
                    Some(Event::ConnectionUnblocked) => info!("RabbitMQ accepts messages again"),
                    Some(_) => {}
                    None => break Err(ConnectionError::Closed),
                }
            }
        };
        self.0.set(None);
        result
    }
}
