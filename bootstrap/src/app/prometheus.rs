//! Metrics for Prometheus.

use anyhow::Context;
use belfry_adapters::telemetry;
use metrics::{describe_gauge, gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;

use super::gauges;

const BUILD_INFO: &str = "belfry_build_info";

/// Access to the recorded metrics.
#[derive(Clone)]
pub(super) struct Prometheus {
    recorder: PrometheusHandle,
    process: Collector,
}

impl Prometheus {
    /// Installs the metrics recorder and describes all metrics. Parts that record metrics must be built afterwards:
    /// metrics that were registered before are lost.
    pub(super) fn install() -> anyhow::Result<Self> {
        let recorder = recorder()
            .and_then(PrometheusBuilder::install_recorder)
            .context("cannot install the metrics recorder")?;
        let process = Collector::default();
        describe_metrics(&process);
        gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        Ok(Self { recorder, process })
    }

    /// All metrics in the Prometheus text format. Reads files of `/proc`, so it may block.
    pub(super) fn render(&self) -> String {
        self.process.collect();
        self.recorder.render()
    }

    pub(super) fn recorder(&self) -> PrometheusHandle {
        self.recorder.clone()
    }
}

/// Builds the recorder with the buckets of every histogram. A histogram without buckets would be rendered as a
/// summary, whose quantiles cannot be added over nodes.
fn recorder() -> Result<PrometheusBuilder, BuildError> {
    let mut histograms = telemetry::histograms().into_iter();
    histograms.try_fold(PrometheusBuilder::new(), |builder, (name, bounds)| {
        builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), bounds)
    })
}

fn describe_metrics(process: &Collector) {
    telemetry::describe_metrics();
    gauges::describe_metrics();
    process.describe();
    describe_gauge!(BUILD_INFO, "1, with the version of Belfry as a label.");
}

#[cfg(test)]
mod tests;
