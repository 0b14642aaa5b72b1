//! The top of the repository contains only known entries.

use std::fs;

use crate::{assert_none, root};

const ENTRIES: [&str; 12] = [
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "adapters",
    "application",
    "bootstrap",
    "compose.yaml",
    "domain",
    "migrations",
    "tests",
];

/// Files that a build or a run leaves there; git ignores them.
const GENERATED: [&str; 4] = ["target", "belfry.toml", "belfry.db", "belfry.dev-key"];

fn breaches<'a>(entries: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    entries
        .into_iter()
        .filter(|entry| !belongs(entry))
        .map(|entry| format!("{entry} does not belong at the top of the repository"))
        .collect()
}

fn belongs(entry: &str) -> bool {
    entry.starts_with('.')
        || ENTRIES.contains(&entry)
        || GENERATED.contains(&entry)
        || entry.starts_with("belfry.db-")
}

#[test]
fn top_of_the_repository_has_only_known_entries() {
    let entries: Vec<String> = fs::read_dir(root())
        .expect("the repository can be read")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    assert_none(&breaches(entries.iter().map(String::as_str)));
}

#[test]
fn unknown_entry_is_found() {
    let expected = ["docs does not belong at the top of the repository"];
    assert_eq!(breaches(["domain", ".ci", "docs", "belfry.db-wal"]), expected);
}
