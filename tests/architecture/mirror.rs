//! The file of each port and the file of its adapter have the same name.

use std::collections::BTreeSet;
use std::path::Path;

use crate::{assert_none, sources};

/// Ports without an adapter of the same name, with the reason.
const EXCEPTIONS: [(&str, &str); 0] = [];

/// The module names of these files: the file's name, or the folder's for a `mod.rs`.
fn modules<'a>(files: impl IntoIterator<Item = &'a Path>) -> BTreeSet<String> {
    files
        .into_iter()
        .filter_map(|file| match file.file_stem()?.to_str()? {
            "mod" => file.parent()?.file_name()?.to_str(),
            stem => Some(stem),
        })
        .map(str::to_owned)
        .collect()
}

fn breaches(
    ports: &BTreeSet<String>,
    adapters: &BTreeSet<String>,
    exceptions: &[(&str, &str)],
) -> Vec<String> {
    let excepted = |port: &str| exceptions.iter().any(|(name, _)| *name == port);
    let missing = ports
        .difference(adapters)
        .filter(|port| !excepted(port))
        .map(|port| format!("no adapter has a file named after the port {port}"));
    let stale = exceptions
        .iter()
        .filter(|(name, _)| !ports.contains(*name) || adapters.contains(*name))
        .map(|(name, _)| format!("the exception for {name} is not needed any more"));
    missing.chain(stale).collect()
}

#[test]
fn every_port_has_an_adapter_of_the_same_name() {
    let ports = sources("application/src/ports");
    let mut ports = modules(ports.iter().map(|(path, _)| path.as_path()));
    ports.remove("ports");
    let [inbound, outbound] = ["adapters/src/inbound", "adapters/src/outbound"].map(sources);
    let adapters = modules(inbound.iter().chain(&outbound).map(|(path, _)| path.as_path()));
    assert_none(&breaches(&ports, &adapters, &EXCEPTIONS));
}

#[test]
fn port_without_an_adapter_is_found() {
    let ports = modules(["ports/clock.rs", "ports/outbox.rs", "ports/inbox/mod.rs"].map(Path::new));
    let adapters = modules(["outbound/postgres/outbox.rs", "outbound/inbox.rs"].map(Path::new));
    let expected = ["no adapter has a file named after the port clock"];
    assert_eq!(breaches(&ports, &adapters, &[]), expected);
    assert_none(&breaches(&ports, &adapters, &[("clock", "for this test")]));
}

#[test]
fn unneeded_exception_is_found() {
    let ports = modules(["ports/clock.rs"].map(Path::new));
    let expected = ["the exception for clock is not needed any more"];
    assert_eq!(breaches(&ports, &ports, &[("clock", "for this test")]), expected);
}
