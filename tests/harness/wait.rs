//! Waiting for something to become true, with a bound.

use std::thread;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

/// How long the harness waits for something that should happen: far more than it takes, so that only
/// a real fault runs into it, also on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

const PAUSE: Duration = Duration::from_millis(20);

/// Asks again and again until the answer is `Some`.
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
/// When there is no answer within [`PATIENCE`]; the sentence says what was waited for.
pub async fn until<T>(what: &str, ask: impl AsyncFnMut() -> Option<T>) -> T {
    until_within(PATIENCE, what, ask).await
}

/// As [`until`], with another bound.
///
/// # Panics
/// When there is no answer within the bound.
pub async fn until_within<T>(
    bound: Duration,
    what: &str,
    mut ask: impl AsyncFnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + bound;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {bound:?} in vain: {what}");
        sleep(PAUSE).await;
    }
}

/// Asks again and again until the answer is `true`.
///
/// # Panics
/// When that takes longer than [`PATIENCE`].
pub async fn until_true(what: &str, mut ask: impl AsyncFnMut() -> bool) {
    until(what, async || ask().await.then_some(())).await;
}

/// Runs a future on a thread and runtime of its own and waits for it, for a `Drop` in the middle of a
/// runtime. `None` when it takes longer than that.
pub(crate) fn aside<T: Send + 'static>(
    bound: Duration,
    work: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    let thread = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        let result = runtime.block_on(async { timeout(bound, work).await.ok() });
        runtime.shutdown_background();
        result
    });
    thread.join().ok().flatten()
}
