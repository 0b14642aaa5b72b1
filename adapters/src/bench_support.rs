//! Internal functions of the hot path, made public for the microbenchmarks in `tests/benches`.

pub use crate::amqp::bench_support::sanitize_frame;
pub use crate::inbound::amqp::bench_support::open;
pub use crate::outbound::socketio::pieces::on_websocket;
