//! Rebuilds the crate when a migration is added: `sqlx::migrate!` makes cargo watch the files that it embedded, but not
//! their directory.

fn main() {
    println!("cargo::rerun-if-changed=../migrations");
}
