//! The `belfry` binary.

use std::process::ExitCode;

// `.cargo/config.toml` has the settings of jemalloc, which does not support MSVC.
#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    belfry::cli::run()
}
