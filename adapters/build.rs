//! Migrations are embedded from outside the crate, where cargo does not look for changes by itself.

fn main() {
    println!("cargo::rerun-if-changed=../migrations");
}
