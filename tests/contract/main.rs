//! Each promise of a port, checked against each of its implementations: one test for each pair, named
//! `implementation::promise`.
#![expect(clippy::unwrap_used, reason = "here an unexpected answer is a failed test")]

mod stores;

use libtest_mimic::{Arguments, Trial};
use tokio::runtime::Runtime;

fn main() {
    let arguments = Arguments::from_args();
    libtest_mimic::run(&arguments, stores::trials()).exit();
}

/// A test that runs on a runtime of its own.
fn trial<F>(name: String, check: impl FnOnce() -> F + Send + 'static) -> Trial
where
    F: Future<Output = ()>,
{
    Trial::test(name, move || {
        Runtime::new().unwrap().block_on(check());
        Ok(())
    })
}
