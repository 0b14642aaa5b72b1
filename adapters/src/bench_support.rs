//! Functions of the hot path, exported so that the benchmarks in `tests/benches` can measure each in isolation. The
//! product runs the same code.

pub use crate::amqp::bench_support::sanitize_frame;
pub use crate::inbound::amqp::bench_support::open_envelope;
pub use crate::outbound::socketio::bench_support::websocket_frame;
