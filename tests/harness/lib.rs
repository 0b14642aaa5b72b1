//! The harness of Belfry's tests: it brings PostgreSQL and RabbitMQ, starts the real `belfry`, and
//! drives real clients against it.
//!
//! | module | gives a test |
//! |---|---|
//! | [`postgres`] | a new empty database, or a whole server of its own to stop and kill |
//! | [`rabbit`] | names of its own on the broker, or a whole broker of its own |
//! | [`process`] | `belfry` as a child process |
//! | [`child`] | any other program as a child process |
//! | [`clients`] | devices: the Socket.IO clients of JavaScript and Python |
//! | [`http`], [`amqp`] | the two other ways in and out |
//! | [`raw_http`], [`raw_socket`], [`raw_amqp`] | the same doors spoken to byte for byte, as no library would |
//! | [`proxy`] | a network that it can cut, close and freeze |
//! | [`tokens`] | good, bad and forged JWTs |
//! | [`provider`] | an identity provider that publishes its keys, and can be down |
//! | [`wait`] | waiting for something to become true, with a bound |
//!
//! Helpers panic with a sentence: in a test that is the report. Every wait has a bound, and no test is
//! ever skipped: what a test needs and cannot get is a failure.
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
