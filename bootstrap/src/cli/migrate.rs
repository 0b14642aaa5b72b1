use super::output::print_line;
use crate::config::Config;
use crate::store::Store;
use crate::telemetry;

/// Runs the database migrations.
pub(super) fn run(config: &Config) -> anyhow::Result<()> {
    telemetry::init_logging(&config.log)?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let store = Store::open(&config.database).await?;
        store.migrate().await?;
        store.close().await;
        print_line("the schema is up to date")
    })
}
