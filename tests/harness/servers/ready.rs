//! Waits until a server accepts clients.

use std::time::Duration;

use anyhow::Context;
use lapin::ConnectionProperties;
use sqlx::{Connection, PgConnection};
use tokio::time::{Instant, sleep, timeout};

use super::{Access, Kind};

/// How long a server may take to start: four times as long as a first start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// Waits until the server accepts clients. `ended` returns `None` while the server runs, and the reason once
/// it has exited.
pub(super) async fn wait(
    kind: Kind,
    access: &Access,
    mut ended: impl AsyncFnMut() -> Option<String>,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(reason) = ended().await {
            anyhow::bail!("{kind} ended while it started: {reason}");
        }
        let answer = timeout(Duration::from_secs(10), ask(kind, access)).await;
        match answer.context("no answer").flatten() {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() >= deadline => {
                return Err(error.context(format!("{kind} does not serve after {PATIENCE:?}")));
            }
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn ask(kind: Kind, access: &Access) -> anyhow::Result<()> {
    match kind {
        Kind::Postgres => PgConnection::connect(&access.url).await?.close().await?,
        Kind::Rabbit => {
            let connection =
                lapin::Connection::connect(&access.url, ConnectionProperties::default()).await?;
            connection.close(200, "thanks".into()).await?;
            if let Some(url) = &access.management {
                let overview = format!("{url}/api/overview");
                crate::http::client().get(overview).send().await?.error_for_status()?;
            }
        }
    }
    Ok(())
}
