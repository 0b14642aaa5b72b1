use std::io;
use std::ops::Deref;
use std::time::Duration;

use lapin::Connection;
use tokio_util::sync::CancellationToken;

/// A connection, and whether it still is one: lapin does not always tell (see [`Lifetime`]).
pub(crate) struct Link {
    connection: Connection,
    lifetime: Lifetime,
}

impl Link {
    pub(super) fn new(connection: Connection, lifetime: Lifetime) -> Self {
        Self { connection, lifetime }
    }

    /// What the broker answers on this connection, or that it will not.
    pub(crate) async fn answered<T, E: From<lapin::Error>>(
        &self,
        answer: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        self.lifetime.answered(answer).await
    }

    /// Waits until the connection is gone, whether or not anybody is told otherwise.
    pub(crate) async fn gone(&self) {
        self.lifetime.over().await;
    }
}

impl Deref for Link {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

/// Tells when the broker's side of a connection has ended, or lapin's has.
///
/// lapin tells those who wait for the broker most of the time, and sometimes, where it happens in the
/// wrong moment, lets them wait without end: for a connection whose broker hangs up right after it has
/// named its limits (`connection.tune`), and for some answers on one that is lost while they are asked.
#[derive(Debug)]
pub(super) struct Lifetime(CancellationToken);

impl Lifetime {
    /// How long lapin has to say what it was after the end. Its reason is worth more than that it ended.
    const FOR_A_REASON: Duration = Duration::from_secs(1);

    /// One that is over when that token is cancelled.
    pub(super) fn begin() -> (Self, CancellationToken) {
        let over = CancellationToken::new();
        (Self(over.clone()), over)
    }

    /// Waits until it is over, and nobody will say why any more.
    async fn over(&self) {
        self.0.cancelled().await;
        tokio::time::sleep(Self::FOR_A_REASON).await;
    }

    /// What the broker answers, or that it will not.
    pub(super) async fn answered<T, E: From<lapin::Error>>(
        &self,
        answer: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        tokio::select! {
            biased;
            answer = answer => answer,
            () = self.over() => {
                Err(lapin::Error::from(io::Error::from(io::ErrorKind::ConnectionAborted)).into())
            }
        }
    }
}
