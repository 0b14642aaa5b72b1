//! Engine.IO (protocol version 4): sessions over WebSockets and over HTTP long-polling, and the upgrade from
//! polling to a WebSocket.
//!
//! Every session has one task, for either transport. It receives packets, keeps the heartbeat and passes messages to
//! an [`EngineHandler`]. Any task can send through the session's
//! [`PacketSender`](crate::outbound::socketio::PacketSender).

mod closing;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzzing;
mod handler;
mod heartbeat;
mod packet;
mod polling;
mod receiver;
mod request;
mod server;
mod session;
mod session_end;
mod session_id;
mod settings;
mod upgrade;

pub use handler::{EngineHandler, EngineMessage, EngineService, Received, Violation};
pub(super) use request::{is_opening, is_valid_opening};
pub use server::EngineServer;
pub use settings::EngineSettings;
