use std::sync::Arc;

use anyhow::Context;
use belfry_adapters::outbound::jwt::JwtVerifier;
use belfry_adapters::outbound::system::SystemClock;

use super::output::print_line;
use crate::app::{jwt_settings, log_risks};
use crate::config::{Config, Effective, Layers};
use crate::telemetry;

/// Checks the settings and the files that they name, and prints the settings in use. It connects to nothing, binds
/// no address and creates no file.
pub(super) fn run(layers: Layers) -> anyhow::Result<()> {
    let Effective { config, settings, injected } = Config::effective(layers)?;
    telemetry::init_logging(&config.log)?;
    check(&config)?;
    match &config.settings_file {
        Some(file) => print_line(&format!("# settings file: {}", file.display()))?,
        None => print_line("# settings file: none")?,
    }
    for setting in settings {
        print_line(&setting.to_string())?;
    }
    print_line("# names and shapes of Socket.IO events and messages:")?;
    for line in config.socket.names()?.lines() {
        print_line(&format!("#   {line}"))?;
    }
    if config.auth.is_development() {
        print_line("# no key is set in [auth]: Belfry uses a development key")?;
    }
    for name in injected {
        print_line(&format!("# ignored: the variable {name} of an orchestrator"))?;
    }
    log_risks(&config);
    Ok(())
}

fn check(config: &Config) -> anyhow::Result<()> {
    config.http.server_settings(config.limits.connection_limits())?;
    config.amqp.broker(&config.node.name_at(&config.http.listen))?;
    // With a development key, this check would create the key file.
    if !config.auth.is_development() {
        let verifier = JwtVerifier::new(&jwt_settings(config)?, Arc::new(SystemClock));
        verifier.context("settings in [auth]")?;
    }
    Ok(())
}
