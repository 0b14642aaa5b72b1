//! Adapters that implement the application's ports. A port's file and its adapter's file have the
//! same name.

pub mod amqp;
pub mod in_process;
pub mod jwt;
pub mod metrics;
pub mod postgres;
mod relational;
pub mod socketio;
pub mod sqlite;
pub mod system;

pub use relational::NotReady;
