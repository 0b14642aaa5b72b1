//! The adapters for RabbitMQ against a broker: what is confirmed is never lost, whatever happens to
//! connections, queues and the store.

mod dead_letters;
mod events;
mod forward;
mod ingest;
mod outages;
mod rig;
