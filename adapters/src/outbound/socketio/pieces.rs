use super::event_frame::EventFrame;
use super::namespace::Namespace;

/// The bytes of a push on the WebSockets of the namespace `/`, encoded by the first who asks.
pub fn on_websocket(frame: &EventFrame) -> &[u8] {
    frame.in_namespace(Namespace::Root)
}
