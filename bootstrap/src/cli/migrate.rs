use super::say;
use crate::config::Config;
use crate::{store, telemetry};

/// Brings the schema up to date, and says so.
pub(super) fn run(config: &Config) -> anyhow::Result<()> {
    telemetry::log(&config.log)?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let store = store::open(&config.database).await?;
        store.migrate().await?;
        store.close().await;
        say("the schema is up to date")
    })
}
