//! Every technology Belfry speaks.
//!
//! - [`inbound`]: doors through which work comes in; each turns what it hears into use cases.
//! - [`outbound`]: what fills the application's ports.
//! - [`transport`]: connections and Engine.IO sessions, and how they are ended.
//! - [`limits`]: the rates at which work may come in.
//! - [`wire`]: the JSON forms that doors and ports have in common.
//! - [`amqp`]: the connections and the topology that both sides of RabbitMQ share.

pub mod amqp;
mod backoff;
#[cfg(feature = "pieces")]
pub mod bench_support;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod inbound;
pub mod limits;
pub mod outbound;
pub mod transport;
pub mod wire;
