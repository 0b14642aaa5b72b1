//! Logs and metrics.

mod expected_errors;

use std::io::IsTerminal;

use anyhow::Context;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use self::expected_errors::ExpectedErrors;
use crate::config::{Log, LogFormat};

/// What the libraries below us may say: no payloads, which some log when asked for more.
const QUIET: &str = "lapin=warn,sqlx=warn,hyper=warn,tungstenite=warn";

/// Sends logs to standard error, in the form and from the level that is set.
pub fn log(settings: &Log) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(format!("{QUIET},{}", settings.level))
        .with_context(|| format!("setting log.level is {:?}", settings.level))?;
    let registry = tracing_subscriber::registry().with(filter).with(ExpectedErrors);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match settings.format {
        LogFormat::Text => registry.with(lines).try_init()?,
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init()?,
    }
    Ok(())
}

/// Collects metrics; the handle renders them for Prometheus.
pub fn metrics() -> anyhow::Result<PrometheusHandle> {
    let handle =
        PrometheusBuilder::new().install_recorder().context("metrics cannot be collected")?;
    belfry_adapters::amqp::describe_metrics();
    Ok(handle)
}
