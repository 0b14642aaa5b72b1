//! What lies at the top of the repository.

use std::fs;

use crate::{none, root};

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

/// What building and running leave there; git ignores them.
const LEFT_BEHIND: [&str; 4] = ["target", "belfry.toml", "belfry.db", "belfry.dev-key"];

fn breaches<'a>(entries: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    entries
        .into_iter()
        .filter(|entry| !belongs(entry))
        .map(|entry| format!("{entry} has no place at the top of the repository"))
        .collect()
}

fn belongs(entry: &str) -> bool {
    entry.starts_with('.')
        || ENTRIES.contains(&entry)
        || LEFT_BEHIND.contains(&entry)
        || entry.starts_with("belfry.db-")
}

#[test]
fn the_top_of_the_repository_has_what_it_should_and_nothing_else() {
    let entries: Vec<String> = fs::read_dir(root())
        .expect("the repository can be read")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    none(&breaches(entries.iter().map(String::as_str)));
}

#[test]
fn a_folder_that_does_not_belong_is_found() {
    let expected = ["docs has no place at the top of the repository"];
    assert_eq!(breaches(["domain", ".ci", "docs", "belfry.db-wal"]), expected);
}
