//! Rules of the architecture, checked against manifests, sources and the runbook.
//!
//! Each rule is a function that returns the breaches in its input. Each rule also has a test with a breach that
//! it must find; otherwise a rule that checks nothing would pass.

use std::fs;
use std::path::{Path, PathBuf};

mod crypto;
mod cycles;
mod layout;
mod log_lines;
mod manifests;
mod metrics;
mod mirror;
mod source;
mod technologies;
mod words;

/// The repository's root.
fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the tests are in the repository").to_owned()
}

/// All Rust files under a folder of the repository, with their paths from its root.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    collect(&root().join(folder), &mut found);
    assert!(!found.is_empty(), "no Rust file under {folder}: was it moved?");
    found
}

fn collect(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(folder).expect("the folder can be read").flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source file is text");
            let from_root = path.strip_prefix(root()).expect("it is in the repository");
            found.push((from_root.to_owned(), text));
        }
    }
}

/// Panics with a list of all breaches if there are any.
#[track_caller]
fn assert_none(breaches: &[String]) {
    assert!(breaches.is_empty(), "\n  {}\n", breaches.join("\n  "));
}
