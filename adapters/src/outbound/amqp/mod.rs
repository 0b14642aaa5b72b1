//! Telling by RabbitMQ.

mod event_publisher;

pub use event_publisher::AmqpEventPublisher;
