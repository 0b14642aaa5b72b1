//! The store in PostgreSQL (14 or newer), for deployments of one or more nodes.
//!
//! - A write reads, plans in Rust, and writes with one statement that does nothing if the inbox has
//!   changed since the read (`optimistic_write`). This takes two round trips and no open
//!   transaction in the common case. It locks only when several writers want the same inbox.
//! - The outbox lease is an advisory lock ([`OUTBOX_LOCK`]) on a connection of its own (`outbox`).
//!
//! Locks and `NOTIFY` channels are per schema (`installation`), so one database may have several
//! installations.
//!
//! Connections keep state between transactions (the lock, prepared statements), so a connection
//! pooler must pool sessions, not transactions.

mod commit_notifier;
mod create;
mod edit;
mod erasure;
mod failure;
mod group_writer;
mod inbox_repository;
mod installation;
mod optimistic_write;
mod outbox;
mod pool;
mod queries;
mod read_floor;
mod readiness;
mod retention;
mod revocations;
mod server;
mod session;
mod settings;
mod store;
mod write_groups;

pub use outbox::OUTBOX_LOCK;
pub use settings::PostgresSettings;
pub use store::PostgresStore;
