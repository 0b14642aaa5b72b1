//! Functions of the hot path that the benches in `tests/benches` measure alone. The product calls the same functions.

pub use crate::amqp::bench_support::sanitize_frame;
pub use crate::inbound::amqp::bench_support::open;
pub use crate::outbound::socketio::bench_support::on_websocket;
