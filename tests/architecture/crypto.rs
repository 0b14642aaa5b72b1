//! The cryptographic libraries that the binary links: ring for TLS, aws-lc-rs for tokens, and no other.
//!
//! One library would be better, but neither does both. jsonwebtoken has no backend for ring, and ring cannot check a
//! public key before it is used. sqlx uses the system's root certificates with ring only. So each has its own
//! purpose: if rustls found both, it would panic at the first handshake.

use std::process::Command;

use crate::{none, root};

/// Libraries that would be a third one, or would use the operating system's.
const NEVER: [&str; 5] = ["openssl", "openssl-sys", "native-tls", "boring", "mbedtls"];

/// The packages that may use aws-lc-rs.
const TOKENS: [&str; 2] = ["belfry-adapters", "jsonwebtoken"];

/// Names of packages that the binary links, without those of tests, macros and build scripts.
fn linked(arguments: &[&str]) -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--package", "belfry", "--edges", "normal,no-proc-macro"])
        .args(["--prefix", "none", "--format", "{p}"])
        .args(arguments)
        .current_dir(root())
        .output()
        .expect("cargo can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("names are text");
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

/// `users` are the packages that depend on aws-lc-rs.
fn breaches(packages: &[String], users: &[String]) -> Vec<String> {
    let never = NEVER.into_iter().filter(|name| packages.iter().any(|package| package == name));
    let never = never.map(|name| format!("{name} is linked into the binary"));
    let others = users.iter().filter(|user| !TOKENS.contains(&user.as_str()));
    never.chain(others.map(|user| format!("{user} uses aws-lc-rs"))).collect()
}

#[test]
fn binary_links_ring_for_tls_and_aws_lc_for_tokens_only() {
    let packages = linked(&[]);
    for name in ["ring", "aws-lc-rs", "rustls"] {
        assert!(packages.iter().any(|package| package == name), "{name}: is it still used?");
    }
    let users = linked(&["--invert", "aws-lc-rs", "--depth", "1"]);
    let users: Vec<_> = users.into_iter().filter(|name| name != "aws-lc-rs").collect();
    assert!(!users.is_empty());
    none(&breaches(&packages, &users));
}

#[test]
fn third_library_and_second_provider_of_rustls_are_found() {
    let names = |names: &[&str]| -> Vec<_> { names.iter().map(|&name| name.to_owned()).collect() };
    let breaches = breaches(&names(&["ring", "openssl-sys"]), &names(&["jsonwebtoken", "rustls"]));
    assert_eq!(breaches, ["openssl-sys is linked into the binary", "rustls uses aws-lc-rs"]);
}
