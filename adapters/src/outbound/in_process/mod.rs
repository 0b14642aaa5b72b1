//! Event publishing within the process, used when no broker is configured.

mod event_publisher;

pub use event_publisher::InProcessEventPublisher;
