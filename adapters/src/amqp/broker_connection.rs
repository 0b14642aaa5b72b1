use std::io;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use lapin::Connection;
use tokio_util::sync::CancellationToken;

use super::byte_budget::ByteBudget;

/// A connection that detects its own end. lapin does not always report the end; see [`ConnectionLifetime`].
pub(crate) struct BrokerConnection {
    connection: Connection,
    lifetime: ConnectionLifetime,
    budget: Arc<ByteBudget>,
}

impl BrokerConnection {
    pub(super) fn new(
        connection: Connection,
        lifetime: ConnectionLifetime,
        budget: Arc<ByteBudget>,
    ) -> Self {
        Self { connection, lifetime, budget }
    }

    /// Limits the bytes of the messages from this connection that this process holds.
    pub(crate) fn budget(&self) -> &Arc<ByteBudget> {
        &self.budget
    }

    /// Awaits a broker operation. Fails when the connection ends first.
    pub(crate) async fn unless_ended<T, E: From<lapin::Error>>(
        &self,
        operation: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        self.lifetime.unless_ended(operation).await
    }

    /// Waits until the connection has ended, even if lapin does not report the end.
    pub(crate) async fn ended(&self) {
        self.lifetime.ended().await;
    }
}

impl Deref for BrokerConnection {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

/// Detects the end of a connection, on the broker's side or on lapin's.
///
/// lapin fails pending operations when a connection ends, except in some races, where they would wait
/// forever: when the broker closes the connection right after `connection.tune`, and for some
/// operations that are in flight when the connection is lost.
#[derive(Debug)]
pub(super) struct ConnectionLifetime(CancellationToken);

impl ConnectionLifetime {
    /// How long lapin may take after the end to report it. lapin's error is preferred because it has the reason.
    const REASON_TIMEOUT: Duration = Duration::from_secs(1);

    /// Returns a lifetime, which ends when the returned token is cancelled.
    pub(super) fn begin() -> (Self, CancellationToken) {
        let ended = CancellationToken::new();
        (Self(ended.clone()), ended)
    }

    /// Waits for the end and then for [`REASON_TIMEOUT`](Self::REASON_TIMEOUT).
    async fn ended(&self) {
        self.0.cancelled().await;
        tokio::time::sleep(Self::REASON_TIMEOUT).await;
    }

    pub(super) async fn unless_ended<T, E: From<lapin::Error>>(
        &self,
        operation: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        tokio::select! {
            biased;
            result = operation => result,
            () = self.ended() => {
                Err(lapin::Error::from(io::Error::from(io::ErrorKind::ConnectionAborted)).into())
            }
        }
    }
}
