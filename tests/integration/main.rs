//! Belfry's adapters and process against real servers.
#![expect(clippy::unwrap_used, reason = "here an unexpected answer is a failed test")]

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
