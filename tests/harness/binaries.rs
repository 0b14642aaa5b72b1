//! The workspace's own executables, in the folder of the running test.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder of executables of this test's build, such as `target/debug`.
fn folder() -> Result<PathBuf, String> {
    let this = env::current_exe().map_err(|e| format!("the path of this test is unknown: {e}"))?;
    this.ancestors()
        .skip(1)
        .find(|folder| !folder.ends_with("deps"))
        .map(Path::to_owned)
        .ok_or_else(|| format!("{} has no folder", this.display()))
}

/// The path of an executable of the same build as this test. Builds the executable if it is missing.
pub(crate) fn beside_this_test(package: &str, name: &str) -> Result<PathBuf, String> {
    let binary = folder()?.join(name);
    if binary.exists() { Ok(binary) } else { build(package, name) }
}

/// Builds an executable, unless it is up to date.
///
/// The command also names the package of the tests, so that cargo selects the same features of the
/// dependencies as for the tests. With other features it would build half of the dependencies again.
pub(crate) fn build(package: &str, name: &str) -> Result<PathBuf, String> {
    let folder = folder()?;
    let target = folder.parent().ok_or("the target folder has no parent")?;
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "--quiet", "-p", "belfry-tests", "-p", package, "--bin", name])
        .arg("--target-dir")
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    if folder.ends_with("release") {
        command.arg("--release");
    }
    match command.status() {
        Ok(status) if status.success() => Ok(folder.join(name)),
        Ok(status) => Err(format!("cargo could not build `{name}`: {status}")),
        Err(error) => Err(format!("`{name}` is not built, and cargo cannot be run: {error}")),
    }
}
