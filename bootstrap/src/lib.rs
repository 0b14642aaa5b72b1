//! Belfry put together: settings, wiring, command line.

pub mod app;
pub mod cli;
pub mod config;
pub mod reload;
pub mod shutdown;
pub mod store;
pub mod telemetry;
pub mod web;
