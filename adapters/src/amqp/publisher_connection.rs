use std::sync::Arc;

use parking_lot::RwLock;

use super::broker_connection::BrokerConnection;
use super::publish_error::PublishError;
use super::settings::AmqpSettings;
use super::topology::Topology;

/// The publisher's current connection, shared by all its channels.
pub(super) struct PublisherConnection {
    pub(super) settings: AmqpSettings,
    pub(super) topology: Topology,
    /// `None` while the publisher is not connected.
    current: RwLock<Option<Arc<BrokerConnection>>>,
}

impl PublisherConnection {
    pub(super) fn new(settings: AmqpSettings, topology: Topology) -> Self {
        Self { settings, topology, current: RwLock::default() }
    }

    pub(super) fn set(&self, connection: Option<Arc<BrokerConnection>>) {
        *self.current.write() = connection;
    }

    /// The current connection. Fails if there is none or the broker blocks publishers.
    pub(super) fn get(&self) -> Result<Arc<BrokerConnection>, PublishError> {
        let connection = self.current.read().clone().ok_or(PublishError::NotConnected)?;
        if connection.status().blocked() {
            return Err(PublishError::Blocked);
        }
        Ok(connection)
    }
}
