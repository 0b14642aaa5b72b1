use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::config::Config;
use crate::{reload, shutdown, telemetry};

/// Serves until told to stop.
pub(super) fn run(config: Config) -> anyhow::Result<()> {
    telemetry::log(&config.log)?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let stop = CancellationToken::new();
        shutdown::on_signals(stop.clone())?;
        let reload = if config.auth.is_development() {
            // There is nothing to read again, and it should end with the terminal it was tried in.
            Arc::default()
        } else {
            reload::on_signals()?
        };
        let app = App::build(config).await?;
        for line in app.greeting() {
            super::say(&line)?;
        }
        app.run(reload, stop).await
    })
}
