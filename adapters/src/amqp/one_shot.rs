use std::sync::Arc;
use std::time::Duration;

use lapin::ErrorKind;
use lapin::protocol::constants::REPLY_SUCCESS;
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::broker_connection::BrokerConnection;
use super::byte_budget::ByteBudget;
use super::connection_error::ConnectionError;
use super::missing_right::{MissingRight, Right};
use super::settings::AmqpSettings;
use super::transport;

/// How long closing a connection may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Converts the error of a failed connect. If the broker refused the login or the virtual host, a right is
/// missing.
fn refused_or_failed(error: lapin::Error, settings: &AmqpSettings) -> ConnectionError {
    let is_refused = match error.kind() {
        ErrorKind::ProtocolError(error) => match error.kind() {
            // The login is refused.
            AMQPErrorKind::Soft(kind) => *kind == AMQPSoftError::ACCESSREFUSED,
            // The virtual host is refused, or does not exist. RabbitMQ uses the same code when the user or the
            // virtual host has reached its maximum number of connections.
            AMQPErrorKind::Hard(kind) => {
                *kind == AMQPHardError::NOTALLOWED
                    && !error.get_message().as_str().contains("connection limit")
            }
        },
        _ => false,
    };
    if !is_refused {
        return error.into();
    }
    let object = settings.url.to_string();
    Box::new(MissingRight { right: Right::Connect, object, error }).into()
}

/// A connection that does not reconnect. Dropping it without [`close`](Self::close) aborts the connection.
pub(crate) struct OneShotConnection {
    connection: Arc<BrokerConnection>,
    _abort_on_drop: DropGuard,
}

impl OneShotConnection {
    /// Connects within [`AmqpSettings::connect_timeout`]. `purpose` becomes a part of the connection's name
    /// in RabbitMQ. `max_held_bytes` is the limit of the connection's [`ByteBudget`].
    pub(crate) async fn open(
        settings: &AmqpSettings,
        purpose: &str,
        max_held_bytes: usize,
    ) -> Result<Self, ConnectionError> {
        let abort = CancellationToken::new();
        let abort_on_drop = abort.clone().drop_guard();
        let budget = ByteBudget::new(max_held_bytes);
        let (uri, properties) = (settings.uri(), settings.properties(purpose));
        let connecting = transport::connect(uri, properties, settings.tls.clone(), abort, budget);
        let connected = timeout(settings.connect_timeout, connecting).await;
        let connection = connected
            .map_err(|_| ConnectionError::Timeout(settings.connect_timeout))?
            .map_err(|error| refused_or_failed(error, settings))?;
        Ok(Self { connection: Arc::new(connection), _abort_on_drop: abort_on_drop })
    }

    pub(crate) fn connection(&self) -> &Arc<BrokerConnection> {
        &self.connection
    }

    /// Closes the connection. To ensure that the broker receives the last acknowledgements, it waits for the
    /// broker's reply, at most [`CLOSE_TIMEOUT`].
    pub(crate) async fn close(self) {
        let _ = timeout(CLOSE_TIMEOUT, self.connection.close(REPLY_SUCCESS, "done".into())).await;
    }
}
