//! The programs that run the scripts in `tests/clients`.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tokio::time::timeout;

use crate::wait::PATIENCE;

/// The folder of the scripts and their dependencies.
pub(super) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// The program that runs JavaScript.
pub(super) fn node() -> PathBuf {
    std::env::var_os("BELFRY_TEST_NODE").unwrap_or_else(|| "node".into()).into()
}

/// The program that runs Python, with the packages that the clients need.
pub(super) fn python() -> PathBuf {
    let program = std::env::var_os("BELFRY_TEST_PYTHON");
    program.map_or_else(|| folder().join(".venv/bin/python"), PathBuf::from)
}

/// Runs one of the scripts in `tests/clients` with this configuration and returns the lines that it wrote. A
/// script whose name ends with `.py` runs on Python, any other on Node.
///
/// # Panics
/// When it fails; the message has its output.
pub async fn run_script(name: &str, config: &Value) -> Vec<Value> {
    let is_python = Path::new(name).extension().is_some_and(|extension| extension == "py");
    let mut command = tokio::process::Command::new(if is_python { python() } else { node() });
    command
        .arg(folder().join(name))
        .arg(config.to_string())
        .current_dir(folder())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    // A script has its own timeouts. This one is for a script that hangs.
    let output = timeout(PATIENCE * 8, command.output()).await;
    let output = output.unwrap_or_else(|_| panic!("{name} hangs")).expect("it can be run");
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {}\n{out}{err}", output.status);
    out.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}
