//! Inbound adapters. Each translates the requests or messages of one technology into use cases, and their
//! results into responses.

pub mod amqp;
pub mod in_process;
pub mod rest;
pub mod socketio;
