//! The `belfry` program: command line, settings and composition root.
//!
//! - [`cli`]: the commands, such as `serve`, `migrate` and `send`
//! - [`config`]: the settings and their sources; `config.default.toml` documents each of them
//! - [`app`]: the server. It connects every port with its adapter and runs its tasks until shutdown
//! - [`store`]: the configured store, PostgreSQL or SQLite
//! - [`web`]: the development page and its sign-in
//! - [`signals`]: shutdown and reload
//! - [`telemetry`]: the format and the levels of the log

pub mod app;
pub mod cli;
pub mod config;
mod host_header;
pub mod signals;
pub mod store;
pub mod telemetry;
pub mod web;
