//! Starts the servers that tests need and runs them until its standard input ends. A shell shares them
//! among many test binaries:
//!
//! ```sh
//! coproc belfry-test-servers
//! while read -r line <&"${COPROC[0]}" && [ "$line" != '# ready' ]; do eval "$line"; done
//! ```

use std::process::ExitCode;

fn main() -> ExitCode {
    belfry_tests::servers::supervisor::main(std::env::args().skip(1))
}
