//! Starts the servers that tests need and prints their addresses as `export` lines. The servers run until
//! standard input ends. With this, a shell shares the servers among many test binaries:
//!
//! ```sh
//! coproc belfry-test-servers
//! while read -r line <&"${COPROC[0]}" && [ "$line" != '# ready' ]; do eval "$line"; done
//! ```

use std::process::ExitCode;

fn main() -> ExitCode {
    belfry_tests::servers::supervisor::main(std::env::args().skip(1))
}
