//! The cryptographic libraries that the binary links: ring for TLS, aws-lc-rs for tokens, and no other.
//!
//! One library would be better, but neither can do both. Tokens cannot use ring: jsonwebtoken has no backend
//! for it, and ring cannot check a public key before it is used. TLS cannot use aws-lc-rs: sqlx uses the
//! system's root certificates with ring only. rustls must be built with ring only: with both it would panic
//! at the first handshake, because it cannot choose.

use std::process::Command;

use crate::{assert_none, root};

/// Further cryptographic libraries, and bindings to those of the operating system.
const FORBIDDEN: [&str; 5] = ["openssl", "openssl-sys", "native-tls", "boring", "mbedtls"];

/// The packages that may use aws-lc-rs, all for tokens.
const AWS_LC_USERS: [&str; 2] = ["belfry-adapters", "jsonwebtoken"];

/// The packages that the binary links, from `cargo tree` with further arguments. Dependencies of tests, macros and
/// build scripts are not included.
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

/// `packages` are linked into the binary; `aws_lc_users` are those of them that depend on aws-lc-rs.
fn breaches(packages: &[String], aws_lc_users: &[String]) -> Vec<String> {
    let is_linked = |name: &&str| packages.iter().any(|package| package == name);
    let forbidden = FORBIDDEN.into_iter().filter(is_linked);
    let forbidden = forbidden.map(|name| format!("{name} is linked into the binary"));
    let others = aws_lc_users.iter().filter(|user| !AWS_LC_USERS.contains(&user.as_str()));
    forbidden.chain(others.map(|user| format!("{user} uses aws-lc-rs"))).collect()
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
    assert_none(&breaches(&packages, &users));
}

#[test]
fn third_library_and_second_provider_of_rustls_are_found() {
    let names = |names: &[&str]| -> Vec<_> { names.iter().map(|&name| name.to_owned()).collect() };
    let breaches = breaches(&names(&["ring", "openssl-sys"]), &names(&["jsonwebtoken", "rustls"]));
    assert_eq!(breaches, ["openssl-sys is linked into the binary", "rustls uses aws-lc-rs"]);
}
