//! Waiting for a condition, with a timeout.

use std::thread;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

/// How long the harness waits for something that should happen. Normally it happens far sooner, so that even
/// on a busy machine a wait times out only for a real fault.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The pause between two calls of `ask`.
const PAUSE: Duration = Duration::from_millis(20);

/// Calls `ask` again and again until it returns `Some`.
///
/// ```no_run
/// # async fn example(inbox: impl AsyncFn() -> Vec<String>) {
/// let all = belfry_tests::wait::until("the inbox has three", async || {
///     let rows = inbox().await;
///     (rows.len() == 3).then_some(rows)
/// })
/// .await;
/// # }
/// ```
///
/// # Panics
/// When there is no answer within [`PATIENCE`]; the message contains `what`.
pub async fn until<T>(what: &str, ask: impl AsyncFnMut() -> Option<T>) -> T {
    until_within(PATIENCE, what, ask).await
}

/// Like [`until`], with another timeout.
///
/// # Panics
/// When there is no answer within the timeout.
pub async fn until_within<T>(
    limit: Duration,
    what: &str,
    mut ask: impl AsyncFnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} in vain: {what}");
        sleep(PAUSE).await;
    }
}

/// Calls `ask` again and again until it returns `true`.
///
/// # Panics
/// When that takes longer than [`PATIENCE`].
pub async fn until_true(what: &str, mut ask: impl AsyncFnMut() -> bool) {
    until(what, async || ask().await.then_some(())).await;
}

/// Calls `read` again and again until it returns at least `count`. This may take any time while the number
/// grows.
///
/// # Panics
/// When the number does not grow for [`PATIENCE`].
pub async fn until_at_least(what: &str, count: u64, mut read: impl AsyncFnMut() -> u64) {
    let mut last = read().await;
    while last < count {
        last = until(what, async || Some(read().await).filter(|now| *now > last)).await;
    }
}

/// Runs a future on a thread and runtime of its own and blocks until it is done. A `Drop` needs this to run
/// async code within a runtime. `None` if the future takes longer than `limit`.
pub(crate) fn block_on_thread<T: Send + 'static>(
    limit: Duration,
    work: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    let thread = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        let result = runtime.block_on(async { timeout(limit, work).await.ok() });
        runtime.shutdown_background();
        result
    });
    thread.join().ok().flatten()
}
