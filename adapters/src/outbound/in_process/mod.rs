//! Telling within the process: the default where there is no broker.

mod event_publisher;

pub use event_publisher::InProcessEventPublisher;
