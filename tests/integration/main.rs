//! Belfry's adapters and the `belfry` process against real servers.
#![expect(clippy::unwrap_used, reason = "an unexpected error fails the test")]

mod amqp;
mod harness;
mod postgres_deployments;
mod postgres_erasure;
mod postgres_outbox;
mod postgres_reads;
mod postgres_revocations;
mod postgres_store;
mod protocol;
mod socketio;
