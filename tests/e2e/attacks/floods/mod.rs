//! Many connections that send little, send without end, or never finish.
//!
//! The server must close each connection within its deadline and free everything that belongs to it: no
//! connection, no session and no task may be left. A bystander must receive notifications throughout.

mod connections;
mod endless_input;
mod handshakes;
mod messages;
mod raw_flood;
mod scenario;
mod sessions;
mod upgrades;

use std::time::Duration;

/// How many times an attack runs in parallel: if one run leaks something, the count shows it this many
/// times.
const PARALLEL: usize = 20;
const SECOND: Duration = Duration::from_secs(1);
