//! The adapters: all technologies that Belfry uses, in one crate.
//!
//! - [`inbound`]: RabbitMQ consumers, the REST API and the Socket.IO server. They call use cases.
//! - [`outbound`]: implementations of the application's ports.
//! - Shared by several adapters: [`transport`] (connections and WebSockets), [`limits`] (rate limits), [`wire`] (JSON
//!   forms), [`amqp`] (RabbitMQ connections), [`http_client`] (HTTP requests) and [`file_access`] (file permissions).
//!   [`telemetry`] lists the metrics of all adapters.
//!
//! To add an outbound adapter, implement the port in `outbound/<technology>/<port>.rs`, named after the
//! port's file, and run the port's contract on it in `tests/contract`. To add an inbound adapter, write a
//! module `inbound/<technology>` that takes the use cases as parameters. Then create the adapter in
//! `bootstrap`. Code that several adapters need belongs in one of the shared modules.

pub mod amqp;
#[cfg(feature = "bench_support")]
pub mod bench_support;
pub mod file_access;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod http_client;
pub mod inbound;
pub mod limits;
pub mod outbound;
mod polled_files;
pub mod telemetry;
pub mod transport;
pub mod wire;
