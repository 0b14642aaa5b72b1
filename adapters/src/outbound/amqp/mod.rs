//! Publishing events to RabbitMQ.

mod event_publisher;

pub use event_publisher::AmqpEventPublisher;
