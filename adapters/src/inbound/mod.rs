//! Doors through which work comes in. Each turns what it hears into a use case, and what becomes of
//! it into its own kind of answer.

pub mod amqp;
pub mod in_process;
pub mod rest;
pub mod socketio;
