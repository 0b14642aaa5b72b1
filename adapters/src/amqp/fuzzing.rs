use super::mending::mend;

/// The type of a frame as one byte, and its payload: mending keeps every byte in its place, and there
/// is nothing to mend a second time.
///
/// # Panics
/// When that does not hold.
pub fn frame(bytes: &[u8]) {
    let Some((kind, payload)) = bytes.split_first() else { return };
    let mut once = payload.to_vec();
    mend(*kind, &mut once);
    assert_eq!(once.len(), payload.len());
    let mut twice = once.clone();
    mend(*kind, &mut twice);
    assert_eq!(once, twice);
}
