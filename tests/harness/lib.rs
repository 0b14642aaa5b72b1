//! The harness of Belfry's tests: it starts PostgreSQL, RabbitMQ and the real `belfry`, and drives real
//! clients against it.
//!
//! | module | provides |
//! |---|---|
//! | [`postgres`] | an empty database, or a server of the test's own to stop and kill |
//! | [`pgbouncer`] | a connection pooler in front of a database |
//! | [`rabbit`] | names of the test's own on the broker, or a broker of its own |
//! | [`process`] | `belfry` as a child process |
//! | [`child`] | any other program as a child process |
//! | [`clients`] | devices: the Socket.IO clients of JavaScript and Python |
//! | [`http`], [`amqp`] | clients of REST and AMQP |
//! | [`raw_http`], [`raw_socket`], [`raw_amqp`] | requests, frames and messages that no library would send |
//! | [`proxy`] | a TCP proxy that the test can cut, close and freeze |
//! | [`tokens`] | valid, invalid and forged JWTs |
//! | [`provider`] | an identity provider that publishes its keys and can be taken down |
//! | [`servers`] | the PostgreSQL and RabbitMQ servers behind [`postgres`] and [`rabbit`] |
//! | [`wait`] | waiting for a condition, with a timeout |
//!
//! A helper that fails panics, and the panic message is the report of the failed test. Every wait has a
//! timeout. No test is ever skipped: a test whose servers or clients are missing fails.
#![expect(
    clippy::missing_panics_doc,
    reason = "every helper of this crate fails a test by panicking"
)]

pub mod amqp;
mod binaries;
pub mod child;
pub mod clients;
pub mod http;
mod names;
pub mod pgbouncer;
pub mod postgres;
pub mod process;
pub mod provider;
pub mod proxy;
pub mod rabbit;
pub mod raw_amqp;
pub mod raw_http;
pub mod raw_socket;
pub mod servers;
pub mod tokens;
pub mod wait;
