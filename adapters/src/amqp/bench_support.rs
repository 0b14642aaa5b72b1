use super::frame_sanitizer;

/// Sanitizes the payload of one frame in place. `frame_type` is 1 for a method and 2 for the properties
/// of a message.
pub fn sanitize_frame(frame_type: u8, payload: &mut [u8]) {
    frame_sanitizer::sanitize(frame_type, payload);
}
