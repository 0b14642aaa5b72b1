//! Contract tests: one test for each promise of a port and each implementation of it, named
//! `implementation::promise`.
#![expect(clippy::unwrap_used, reason = "an unexpected error fails the test")]

mod stores;

use libtest_mimic::{Arguments, Trial};
use tokio::runtime::Runtime;

fn main() {
    let arguments = Arguments::from_args();
    libtest_mimic::run(&arguments, stores::trials()).exit();
}

/// A test with its own runtime.
fn trial<F>(name: String, check: impl FnOnce() -> F + Send + 'static) -> Trial
where
    F: Future<Output = ()>,
{
    Trial::test(name, move || {
        Runtime::new().unwrap().block_on(check());
        Ok(())
    })
}
