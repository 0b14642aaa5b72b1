//! The RabbitMQ adapters against a real broker: no confirmed message is lost, even if connections break, queues are
//! deleted or the store is down.

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
