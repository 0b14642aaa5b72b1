//! Logs.

mod expected_errors;

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use self::expected_errors::ExpectedErrors;
use crate::config::{Log, LogFormat};

/// The levels of libraries that log payloads at more detailed levels. `lapin::returned_messages` logs each
/// unroutable message with its payload as a warning; the publisher of the message logs the failure itself.
const LIBRARY_LEVELS: &str =
    "lapin=warn,lapin::returned_messages=error,sqlx=warn,hyper=warn,tungstenite=warn";

/// Sends logs to standard error, in the configured format and from the configured level on.
pub fn init_logging(settings: &Log) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(format!("{LIBRARY_LEVELS},{}", settings.level))
        .with_context(|| format!("setting log.level is {}", settings.level))?;
    let registry = tracing_subscriber::registry().with(filter).with(ExpectedErrors);
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match settings.format {
        LogFormat::Text => registry.with(layer).try_init()?,
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init()?,
    }
    Ok(())
}
