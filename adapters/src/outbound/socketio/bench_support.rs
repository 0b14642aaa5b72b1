use super::event_frame::EventFrame;
use super::namespace::Namespace;
use crate::wire::socket::EventTable;

/// The WebSocket frame of a push in the namespace `/`. The first call encodes it.
pub fn websocket_frame(frame: &EventFrame) -> &[u8] {
    const TABLE: &EventTable = &EventTable::BELFRY;
    &frame.in_namespace(Namespace::ROOT, TABLE)[0]
}
