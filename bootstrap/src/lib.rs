//! The `belfry` program: command line, settings and composition root.
//!
//! - [`cli`]: the commands, such as `serve`, `migrate` and `send`
//! - [`config`]: the settings and their sources; `config.default.toml` documents each of them
//! - [`app`]: the server. It connects every port with its adapter and runs the parts until shutdown
//! - [`store`]: PostgreSQL or SQLite
//! - [`web`]: the page and the sign-in for development
//! - [`signals`] and [`telemetry`]: shutdown and reload; logs

pub mod app;
pub mod cli;
pub mod config;
mod host_header;
pub mod signals;
pub mod store;
pub mod telemetry;
pub mod web;
