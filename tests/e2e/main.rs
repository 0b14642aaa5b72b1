//! End-to-end tests: real clients, real processes, real servers.
//!
//! A scenario is a function that takes the [`Setup`](setup::Setup) it runs on. [`on_both_setups!`] makes two
//! tests of it, one on PostgreSQL and RabbitMQ and one on the embedded default. Tests share a `belfry` if
//! separate users isolate them. A test that stops, kills or configures `belfry` has its own.
#![expect(clippy::unwrap_used, reason = "here an unexpected answer is a failed test")]

#[macro_use]
mod setup;

mod attacks;
mod base_path;
mod broker;
mod browser;
mod bulk;
mod catch_up;
mod commands;
mod compat;
mod compose;
mod contract;
mod delivery;
mod erasure;
mod events;
mod faults;
mod forward;
mod keys;
mod limits;
mod listening;
mod metrics;
mod nest_gateway;
mod nest_queues;
mod nest_snippets;
mod networks;
mod origins;
mod outages;
mod reading;
mod rest;
mod retention;
mod revocation;
mod settings;
mod sign_in;
mod storage;
