//! Names that no other test, test process or checkout uses at the same time.

use uuid::Uuid;

/// Twelve random hexadecimal digits in lower case.
#[expect(clippy::disallowed_methods, reason = "the harness only needs a unique name")]
pub(crate) fn unique() -> String {
    let mut name = Uuid::new_v4().simple().to_string();
    name.truncate(12);
    name
}

/// A password for a server of this test run.
#[expect(
    clippy::disallowed_methods,
    reason = "the harness only needs a value that cannot be guessed"
)]
pub(crate) fn password() -> String {
    Uuid::new_v4().simple().to_string()
}
