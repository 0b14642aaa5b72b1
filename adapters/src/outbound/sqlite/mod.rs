//! The store in a SQLite file, for one process. It is the default and needs no installation.
//!
//! Writes run one after another on the only writing connection, as SQLite requires. Reads run on
//! other connections and do not wait for writes (write-ahead log).

mod commit_notifier;
mod create;
mod edit;
mod erasure;
mod failure;
mod file;
mod group_writer;
mod inbox_repository;
mod inbox_write;
mod outbox;
mod queries;
mod readiness;
mod retention;
mod revocations;
mod settings;
mod store;
#[cfg(test)]
mod tests;
mod write;

pub use settings::SqliteSettings;
pub use store::SqliteStore;
