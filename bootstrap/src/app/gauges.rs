//! Gauges that are updated every few seconds.

use std::sync::Arc;
use std::time::Duration;

use belfry_application::ports::Outbox;
use metrics::{Gauge, Unit, describe_gauge, gauge};
use metrics_exporter_prometheus::PrometheusHandle;

use super::context::AppContext;
use super::process_stats::ProcessStats;
use super::tasks::Task;

const DEVICES_CONNECTED: &str = "belfry_devices_connected";
const DEVICES_LAGGING: &str = "belfry_devices_lagging";
const CONNECTIONS_OPEN: &str = "belfry_connections_open";
const OUTBOX_BACKLOG: &str = "belfry_outbox_backlog";
const OUTBOX_AGE: &str = "belfry_outbox_age_seconds";

/// The time between two updates.
const INTERVAL: Duration = Duration::from_secs(5);

pub(super) fn describe_metrics() {
    describe_gauge!(DEVICES_CONNECTED, "Devices that are connected to this node.");
    describe_gauge!(
        DEVICES_LAGGING,
        "Connected devices of this node that missed an event and have not caught up yet."
    );
    describe_gauge!(
        CONNECTIONS_OPEN,
        "Open connections of the public listener, WebSockets included."
    );
    describe_gauge!(
        OUTBOX_BACKLOG,
        "Stored events that are not published yet. The same on every node that shares the store."
    );
    describe_gauge!(
        OUTBOX_AGE,
        Unit::Seconds,
        "Age of the oldest stored event that is not published yet, by the database's clock; 0 if there is none. \
         The same on every node that shares the store."
    );
}

/// Updates the gauges until the stop.
pub(super) fn task(
    context: &AppContext,
    recorder: PrometheusHandle,
    stats: ProcessStats,
    outbox: Arc<dyn Outbox>,
) -> Task {
    let stop = context.stop.clone();
    let gauges = Gauges::register();
    Task::new("gauges", async move {
        loop {
            gauges.set_connections(&stats);
            // Sorts the recorded durations into their buckets. The recorder keeps each value in memory until
            // then.
            recorder.run_upkeep();
            stop.run_until_cancelled(gauges.set_outbox(&*outbox)).await;
            if stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_none() {
                return;
            }
        }
    })
}

struct Gauges {
    devices_connected: Gauge,
    devices_lagging: Gauge,
    connections_open: Gauge,
    outbox_backlog: Gauge,
    outbox_age: Gauge,
}

impl Gauges {
    fn register() -> Self {
        Self {
            devices_connected: gauge!(DEVICES_CONNECTED),
            devices_lagging: gauge!(DEVICES_LAGGING),
            connections_open: gauge!(CONNECTIONS_OPEN),
            outbox_backlog: gauge!(OUTBOX_BACKLOG),
            outbox_age: gauge!(OUTBOX_AGE),
        }
    }

    fn set_connections(&self, stats: &ProcessStats) {
        self.devices_connected.set(as_float(stats.sessions.count() as u64));
        self.devices_lagging.set(as_float(stats.sessions.lagging_count() as u64));
        self.connections_open.set(as_float(stats.public_connections.count() as u64));
    }

    /// While the store is down, the gauges keep their last values.
    async fn set_outbox(&self, outbox: &dyn Outbox) {
        if let Ok(backlog) = outbox.backlog().await {
            self.outbox_backlog.set(as_float(backlog.entries));
            self.outbox_age.set(backlog.age);
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "no gauge counts beyond 2^52")]
fn as_float(count: u64) -> f64 {
    count as f64
}
