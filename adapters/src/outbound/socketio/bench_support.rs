use super::event_frame::EventFrame;
use super::namespace::Namespace;

/// The WebSocket frame of a push in the namespace `/`. The first call encodes it.
pub fn on_websocket(frame: &EventFrame) -> &[u8] {
    frame.in_namespace(Namespace::Root)
}
