use super::mending;

/// Makes the payload of a frame of that type readable for lapin: 1 for a method, 2 for a message's
/// properties.
pub fn mend(frame: u8, payload: &mut [u8]) {
    mending::mend(frame, payload);
}
