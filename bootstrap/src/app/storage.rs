//! Opens the server's store and defines its background tasks: the connection check and the retention cleanup.

use anyhow::Context;
use belfry_application::use_cases::ApplyRetention;

use super::context::AppContext;
use super::tasks::Task;
use crate::store::Store;

pub(super) async fn open(context: &AppContext) -> anyhow::Result<(Store, [Task; 2])> {
    let store = Store::open(&context.config.database).await?;
    let tasks = [connection_task(context, &store), retention_task(context, &store)];
    Ok((store, tasks))
}

/// Connects to the store, runs the migrations if configured, and then keeps the readiness check up to date.
fn connection_task(context: &AppContext, store: &Store) -> Task {
    let check = context.readiness.register("database");
    let running = store.clone().run(context.config.database.migrate, check, context.stop.clone());
    Task::fallible("database", async { running.await.context("cannot use the database") })
}

fn retention_task(context: &AppContext, store: &Store) -> Task {
    let rules = context.config.retention.rules();
    let retention = ApplyRetention::new(store.retention.clone(), context.clock.clone(), rules);
    let (store, stop) = (store.clone(), context.stop.clone());
    Task::new("retention", async move {
        store.run_when_usable(&stop, retention.run(stop.clone())).await;
    })
}
