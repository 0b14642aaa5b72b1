//! Event publishing within the process, used when no broker is configured.

mod event_publisher;

pub use event_publisher::InProcessEventPublisher;
pub(crate) use event_publisher::PublishedEvent;
