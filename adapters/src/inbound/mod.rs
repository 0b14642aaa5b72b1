//! Inbound adapters. Each translates the requests or messages of one technology into calls of use cases, and
//! their results into responses or acknowledgements.

pub mod amqp;
pub mod in_process;
pub mod rest;
pub(crate) mod socket_latency;
pub mod socketio;
