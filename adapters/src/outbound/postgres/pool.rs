use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use tokio::time::Instant;

use super::session::{self, Purpose};
use super::settings::PostgresSettings;

/// Only a connection that was idle for longer is pinged before use. Under load no connection is, which saves a round
/// trip per use.
const PING_AFTER_IDLE: Duration = Duration::from_secs(1);

/// A pool that opens connections on demand. It closes a retired connection instead of using it again.
pub(super) fn pool(
    options: &PgConnectOptions,
    settings: &PostgresSettings,
    connections: u32,
    retirement: Arc<Retirement>,
) -> PgPool {
    let parameters = session::parameters(Purpose::Store, settings);
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(settings.acquire_timeout)
        .test_before_acquire(false)
        .before_acquire(move |connection, meta| {
            let is_retired = retirement.applies_to(meta.age);
            Box::pin(async move {
                if !is_retired && meta.idle_for > PING_AFTER_IDLE {
                    connection.ping().await?;
                }
                Ok(!is_retired)
            })
        })
        .after_connect(move |connection, _| Box::pin(parameters.clone().apply(connection)))
        .connect_lazy_with(options.clone())
}

/// Retires all connections of a store that are open at one instant: the pool does not use them again. A changed
/// table or a failover usually makes all of them useless.
#[derive(Debug, Default)]
pub(super) struct Retirement(Mutex<Option<Instant>>);

impl Retirement {
    /// The minimum time between two retirements. New connections may fail in the same way as the retired ones, and
    /// must not be replaced all the time.
    const INTERVAL: Duration = Duration::from_secs(1);

    /// Retires all connections that are open now, unless that happened less than a second ago.
    pub(super) fn retire_open_connections(&self) {
        let mut retired = self.0.lock();
        if retired.is_none_or(|at| at.elapsed() >= Self::INTERVAL) {
            *retired = Some(Instant::now());
        }
    }

    /// Whether a connection of that age is retired.
    fn applies_to(&self, age: Duration) -> bool {
        self.0.lock().is_some_and(|at| at.elapsed() <= age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_older_connections_retire_and_at_most_once_a_second() {
        let second = Duration::from_secs(1);
        let retirement = Retirement::default();
        assert!(!retirement.applies_to(second));
        retirement.retire_open_connections();
        tokio::time::advance(second / 2).await;
        assert!(retirement.applies_to(second));
        assert!(!retirement.applies_to(second / 4));
        retirement.retire_open_connections();
        assert!(!retirement.applies_to(second / 4), "too early");
        tokio::time::advance(second / 2).await;
        retirement.retire_open_connections();
        assert!(retirement.applies_to(second / 4));
    }
}
