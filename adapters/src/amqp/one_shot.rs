use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::broker_connection::BrokerConnection;
use super::connection_error::ConnectionError;
use super::settings::AmqpSettings;
use super::transport;

/// How long closing a connection may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection that does not reconnect. Dropping it without [`close`](Self::close) aborts the connection.
pub(crate) struct OneShotConnection {
    connection: Arc<BrokerConnection>,
    _abort_on_drop: DropGuard,
}

impl OneShotConnection {
    /// Connects within [`AmqpSettings::connect_timeout`]. `purpose` becomes a part of the connection's name
    /// in RabbitMQ.
    pub(crate) async fn open(
        settings: &AmqpSettings,
        purpose: &str,
    ) -> Result<Self, ConnectionError> {
        let abort = CancellationToken::new();
        let abort_on_drop = abort.clone().drop_guard();
        let connecting = transport::connect(settings.uri(), settings.properties(purpose), abort);
        let connected = timeout(settings.connect_timeout, connecting).await;
        let connection =
            connected.map_err(|_| ConnectionError::Timeout(settings.connect_timeout))??;
        Ok(Self { connection: Arc::new(connection), _abort_on_drop: abort_on_drop })
    }

    pub(crate) fn connection(&self) -> &Arc<BrokerConnection> {
        &self.connection
    }

    /// Closes the connection and waits at most [`CLOSE_TIMEOUT`] for the broker's confirmation, so that the
    /// broker receives the last acknowledgements.
    pub(crate) async fn close(self) {
        let _ = timeout(CLOSE_TIMEOUT, self.connection.close(200, "done".into())).await;
    }
}
