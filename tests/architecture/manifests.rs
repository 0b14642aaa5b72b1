//! Allowed dependencies of each crate, checked with `cargo metadata`.

use std::process::Command;

use serde::Deserialize;
use serde_json::json;

use crate::{assert_none, root};

#[derive(Debug, Deserialize)]
struct Workspace {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
    /// `dev` or `build`; `None` for a normal dependency.
    kind: Option<String>,
    optional: bool,
    features: Vec<String>,
}

impl Workspace {
    fn read() -> Self {
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
            .current_dir(root())
            .output()
            .expect("cargo can be run");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("it is cargo's JSON")
    }

    fn package(&self, name: &str) -> &Package {
        let found = self.packages.iter().find(|package| package.name == name);
        found.unwrap_or_else(|| panic!("no package {name}: was it renamed?"))
    }
}

impl Package {
    fn normal_dependencies(&self) -> impl Iterator<Item = &Dependency> {
        self.dependencies.iter().filter(|dependency| dependency.kind.is_none())
    }
}

/// A dependency that an inner crate may have.
struct Allowed {
    name: &'static str,
    /// The features that it may enable.
    features: &'static [&'static str],
    /// The dependency must be optional.
    only_optional: bool,
}

const fn allowed(name: &'static str) -> Allowed {
    Allowed { name, features: &[], only_optional: false }
}

const DOMAIN: [Allowed; 1] = [allowed("thiserror")];

/// Extensions of the language, time and tracing; nothing that does I/O.
const APPLICATION: [Allowed; 10] = [
    allowed("belfry-domain"),
    allowed("async-trait"),
    // For the jitter of a backoff, not for secrets. It does no I/O.
    allowed("fastrand"),
    allowed("parking_lot"),
    allowed("thiserror"),
    allowed("tracing"),
    // For channels and timers. With `net`, `fs` or `process`, the crate could do I/O itself.
    Allowed { features: &["sync", "time"], ..allowed("tokio") },
    Allowed { features: &["rt"], ..allowed("tokio-util") },
    // For the mocks and fakes behind `testing`.
    Allowed { only_optional: true, ..allowed("mockall") },
    Allowed { only_optional: true, features: &["std", "sink"], ..allowed("futures-util") },
];

/// Dependencies and features that are not allowed.
fn not_allowed(package: &Package, allowed: &[Allowed]) -> Vec<String> {
    package.normal_dependencies().flat_map(|it| breaches(&package.name, it, allowed)).collect()
}

fn breaches(package: &str, dependency: &Dependency, allowed: &[Allowed]) -> Vec<String> {
    let name = &dependency.name;
    let Some(rule) = allowed.iter().find(|rule| rule.name == name) else {
        return vec![format!("{package} must not depend on {name}")];
    };
    let mut breaches = Vec::new();
    if rule.only_optional && !dependency.optional {
        breaches.push(format!("{package} may depend on {name} only behind a feature"));
    }
    for feature in &dependency.features {
        if !rule.features.contains(&feature.as_str()) {
            breaches.push(format!("{package} must not turn on the feature {feature} of {name}"));
        }
    }
    breaches
}

/// Dependencies on crates in `outer`, the rings outside of the package.
fn outward(package: &Package, outer: &[&str]) -> Vec<String> {
    package
        .dependencies
        .iter()
        .filter(|dependency| outer.contains(&dependency.name.as_str()))
        .map(|dependency| format!("{} must not depend on {}", package.name, dependency.name))
        .collect()
}

#[test]
fn domain_has_only_allowed_dependencies() {
    assert_none(&not_allowed(Workspace::read().package("belfry-domain"), &DOMAIN));
}

#[test]
fn application_has_only_allowed_dependencies() {
    assert_none(&not_allowed(Workspace::read().package("belfry-application"), &APPLICATION));
}

#[test]
fn dependencies_point_inwards() {
    let workspace = Workspace::read();
    // Innermost first. Development dependencies count too.
    let rings =
        ["belfry-domain", "belfry-application", "belfry-adapters", "belfry", "belfry-tests"];
    for (ring, name) in rings.iter().enumerate() {
        assert_none(&outward(workspace.package(name), &rings[ring + 1..]));
    }
    assert_eq!(workspace.packages.len(), rings.len(), "every package is in the list");
}

#[test]
fn adapters_depend_on_application_and_domain() {
    let workspace = Workspace::read();
    let adapters = workspace.package("belfry-adapters");
    for inner in ["belfry-application", "belfry-domain"] {
        let found = adapters.normal_dependencies().any(|dependency| dependency.name == inner);
        assert!(found, "belfry-adapters does not depend on {inner}");
    }
}

fn package(dependencies: &serde_json::Value) -> Package {
    let package = json!({ "name": "belfry-application", "dependencies": dependencies });
    serde_json::from_value(package).expect("it has the form of cargo's JSON")
}

#[test]
fn dependency_on_a_technology_is_found() {
    let breaking = package(&json!([
        { "name": "sqlx", "kind": null, "optional": false, "features": [] },
    ]));
    assert_eq!(
        not_allowed(&breaking, &APPLICATION),
        ["belfry-application must not depend on sqlx"]
    );
}

#[test]
fn feature_that_does_io_is_found() {
    let breaking = package(&json!([
        { "name": "tokio", "kind": null, "optional": false, "features": ["sync", "net"] },
    ]));
    let expected = ["belfry-application must not turn on the feature net of tokio"];
    assert_eq!(not_allowed(&breaking, &APPLICATION), expected);
}

#[test]
fn mock_in_the_product_is_found() {
    let breaking = package(&json!([
        { "name": "mockall", "kind": null, "optional": false, "features": [] },
    ]));
    let expected = ["belfry-application may depend on mockall only behind a feature"];
    assert_eq!(not_allowed(&breaking, &APPLICATION), expected);
}

#[test]
fn development_dependency_is_allowed() {
    let fine = package(&json!([
        { "name": "proptest", "kind": "dev", "optional": false, "features": ["std"] },
    ]));
    assert_none(&not_allowed(&fine, &APPLICATION));
}

#[test]
fn outward_development_dependency_is_found() {
    let breaking = package(&json!([
        { "name": "belfry-adapters", "kind": "dev", "optional": false, "features": [] },
    ]));
    let expected = ["belfry-application must not depend on belfry-adapters"];
    assert_eq!(outward(&breaking, &["belfry-adapters"]), expected);
}
