use super::frame_sanitizer::sanitize;

/// Sanitizes a frame. Input: the type of the frame as one byte, then its payload.
///
/// # Panics
/// When sanitizing changes the length, or when a second pass still changes something.
pub fn frame(bytes: &[u8]) {
    let Some((frame_type, payload)) = bytes.split_first() else { return };
    let mut once = payload.to_vec();
    sanitize(*frame_type, &mut once);
    assert_eq!(once.len(), payload.len());
    let mut twice = once.clone();
    sanitize(*frame_type, &mut twice);
    assert_eq!(once, twice);
}
