//! Functions of the hot path that the benches in `tests/benches` measure alone. The product calls the same functions.

pub use crate::amqp::pieces::mend;
pub use crate::inbound::amqp::pieces::open;
pub use crate::outbound::socketio::bench_support::on_websocket;
