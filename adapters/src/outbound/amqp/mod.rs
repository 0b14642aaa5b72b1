//! Publishing to other services through RabbitMQ.

mod event_publisher;
mod inbox_owner;

pub use event_publisher::AmqpEventPublisher;
pub use inbox_owner::AmqpInboxOwner;
