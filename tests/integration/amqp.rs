//! The RabbitMQ adapters against a real broker: no confirmed message is lost, whatever happens to
//! connections, queues and the store.

mod dead_letters;
mod devices;
mod events;
mod existing;
mod forward;
mod full_queues;
mod ingest;
mod outages;
mod requests;
mod rig;
mod tls;
