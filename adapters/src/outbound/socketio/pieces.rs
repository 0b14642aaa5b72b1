use super::frame::{EventFrame, Namespace};

/// The bytes of a push on the WebSockets of the namespace `/`, encoded by the first who asks.
pub fn on_websocket(frame: &EventFrame) -> &[u8] {
    frame.on_websocket(Namespace::Root)
}
