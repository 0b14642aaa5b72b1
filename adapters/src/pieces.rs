//! What benches measure by itself: the pieces of the hot path that nothing public reaches alone. They
//! are the product's own functions, called as it calls them.
//!
//! The benches lie in `tests/benches`.

pub use crate::amqp::pieces::mend;
pub use crate::inbound::amqp::pieces::open;
pub use crate::outbound::socketio::pieces::on_websocket;
