//! Background tasks and the supervisor that notices when one fails.

use std::pin::Pin;

use anyhow::anyhow;
use tokio::runtime::Handle;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::error;

/// A task that runs until the shutdown. It does nothing until the supervisor spawns it.
pub(super) struct Task {
    name: &'static str,
    /// `None` for the runtime of the supervisor.
    runtime: Option<Handle>,
    future: Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>,
}

impl Task {
    pub(super) fn new(
        name: &'static str,
        future: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        Self::fallible(name, async {
            future.await;
            Ok(())
        })
    }

    pub(super) fn fallible(
        name: &'static str,
        future: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) -> Self {
        Self { name, runtime: None, future: Box::pin(future) }
    }

    /// Runs the task on the threads of this runtime instead of the supervisor's.
    pub(super) fn on(self, runtime: Handle) -> Self {
        Self { runtime: Some(runtime), ..self }
    }
}

/// Tasks that must all run until the shutdown.
pub(super) struct Supervisor(JoinSet<(&'static str, TaskResult)>);

/// A `JoinError` is always a panic, because no task is aborted.
type TaskResult = Result<anyhow::Result<()>, JoinError>;

impl Supervisor {
    pub(super) fn spawn(tasks: impl IntoIterator<Item = Task>) -> Self {
        let mut running = JoinSet::new();
        for Task { name, runtime, future } in tasks {
            let runtime = runtime.unwrap_or_else(Handle::current);
            let task = runtime.spawn(future);
            running.spawn(async move { (name, task.await) });
        }
        Self(running)
    }

    /// Waits for `stop`. A task that ends earlier is an error, because the server works only in part without it.
    /// The process then exits, and its orchestrator restarts it.
    pub(super) async fn run_until(&mut self, stop: &CancellationToken) -> anyhow::Result<()> {
        tokio::select! {
            biased;
            () = stop.cancelled() => Ok(()),
            Some(Ok((name, result))) = self.0.join_next() => {
                Err(failure(name, result).unwrap_or_else(|| anyhow!("task {name} ended early")))
            }
        }
    }

    /// Waits until all tasks have ended. Their failures no longer matter, so they are only logged.
    pub(super) async fn join(mut self) {
        while let Some(joined) = self.0.join_next().await {
            if let Ok((task, result)) = joined
                && let Some(error) = failure(task, result)
            {
                error!(task, error = format!("{error:#}"), "task failed during shutdown");
            }
        }
    }
}

fn failure(name: &str, result: TaskResult) -> Option<anyhow::Error> {
    match result {
        Ok(result) => result.err(),
        Err(panic) => Some(anyhow::Error::new(panic).context(format!("task {name} failed"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn task_that_ends_before_the_stop_is_an_error_with_its_name() {
        let stop = CancellationToken::new();
        let until_stop = stop.clone();
        let endless = move || {
            let stop = until_stop.clone();
            Task::new("endless", async move { stop.cancelled().await })
        };
        let ends = Task::new("short", async {});
        let fails = Task::fallible("failing", async { Err(anyhow!("no disk")) });
        let panics = Task::new("panicking", async { panic!("on purpose") });
        for (task, expected) in [(ends, "short"), (fails, "no disk"), (panics, "panicking")] {
            let mut supervisor = Supervisor::spawn([endless(), task]);
            let error = supervisor.run_until(&stop).await.unwrap_err();
            assert!(format!("{error:#}").contains(expected), "{error:#}");
        }
    }

    #[tokio::test]
    async fn stop_is_no_error_and_join_waits_for_all_tasks() {
        let stop = CancellationToken::new();
        let ended = CancellationToken::new();
        let task = Task::new("draining", {
            let (stop, ended) = (stop.clone(), ended.clone());
            async move {
                stop.cancelled().await;
                tokio::task::yield_now().await;
                ended.cancel();
            }
        });
        let mut supervisor = Supervisor::spawn([task]);
        stop.cancel();
        supervisor.run_until(&stop).await.unwrap();
        supervisor.join().await;
        assert!(ended.is_cancelled());
    }
}
