//! The frames of a WebSocket (RFC 6455, section 5.2) as a server writes them: unmasked, one for each message.

use bytes::Bytes;

// The opcodes of frames, and the FIN bit of a frame's first byte.
pub(super) const CONTINUATION: u8 = 0x0;
pub(super) const TEXT: u8 = 0x1;
pub(super) const BINARY: u8 = 0x2;
pub(super) const CLOSE: u8 = 0x8;
pub(super) const PING: u8 = 0x9;
pub(super) const PONG: u8 = 0xa;
pub(super) const FINAL: u8 = 0x80;

/// The status codes of a close frame (section 7.4.1) that this server sends by itself.
pub(crate) mod close_code {
    pub(crate) const PROTOCOL_ERROR: u16 = 1_002;
    pub(crate) const INVALID_PAYLOAD: u16 = 1_007;
    pub(crate) const TOO_LARGE: u16 = 1_009;
}

/// A text frame whose text is the concatenation of these strings.
pub(crate) fn text_frame(strings: &[&str]) -> Bytes {
    let length: usize = strings.iter().map(|string| string.len()).sum();
    let mut frame = data_head(TEXT, length);
    for string in strings {
        frame.extend_from_slice(string.as_bytes());
    }
    frame.into()
}

/// A binary frame.
pub(crate) fn binary_frame(payload: &[u8]) -> Bytes {
    let mut frame = data_head(BINARY, payload.len());
    frame.extend_from_slice(payload);
    frame.into()
}

/// The head of a data frame, with capacity for its payload.
fn data_head(opcode: u8, length: usize) -> Vec<u8> {
    /// The length of the longest head without a mask, in bytes.
    const MAX_HEAD: usize = 10;
    let mut frame = Vec::with_capacity(length + MAX_HEAD);
    frame.push(FINAL | opcode);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ ..=125), _) => frame.push(short),
        (_, Ok(medium)) => {
            frame.push(126);
            frame.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            frame.push(127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame
}

/// The pong to a ping with that payload.
pub(crate) fn pong_frame(payload: &[u8]) -> Bytes {
    control_frame(PONG, payload)
}

/// A close frame with this status code, which is the client's if the client starts the closing handshake.
///
/// A client's code that must not be sent (section 7.4) is answered with the code for a protocol error.
pub(crate) fn close_frame(code: Option<u16>) -> Bytes {
    match code {
        Some(code @ (1_000..=1_003 | 1_007..=1_014 | 3_000..=4_999)) => {
            control_frame(CLOSE, &code.to_be_bytes())
        }
        Some(_) => control_frame(CLOSE, &close_code::PROTOCOL_ERROR.to_be_bytes()),
        None => Bytes::from_static(&[FINAL | CLOSE, 0]),
    }
}

fn control_frame(opcode: u8, payload: &[u8]) -> Bytes {
    /// The maximum payload of a control frame (section 5.5), in bytes.
    const MAX_PAYLOAD: usize = 125;
    let payload = &payload[..payload.len().min(MAX_PAYLOAD)];
    let length = u8::try_from(payload.len()).unwrap_or_default();
    [&[FINAL | opcode, length], payload].concat().into()
}

/// The payload of a data frame of this module.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Payload {
    Text(Bytes),
    Binary(Bytes),
}

/// Returns the payload of a data frame of this module without copying it.
pub(crate) fn payload_of(frame: &Bytes) -> Payload {
    let head = match frame[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    let payload = frame.slice(head..);
    if frame[0] & 0x0f == BINARY { Payload::Binary(payload) } else { Payload::Text(payload) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_frame_has_the_shortest_possible_head_and_returns_its_payload() {
        for (length, head) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let text = "x".repeat(length);
            let frame = text_frame(&["", &text]);
            assert_eq!(frame.len(), length + head, "{length}");
            assert_eq!(payload_of(&frame), Payload::Text(text.into()), "{length}");
            let bytes = vec![7; length];
            let frame = binary_frame(&bytes);
            assert_eq!(frame.len(), length + head, "{length}");
            assert_eq!(payload_of(&frame), Payload::Binary(bytes.into()), "{length}");
        }
    }

    #[test]
    fn control_frame_carries_at_most_125_bytes() {
        assert_eq!(pong_frame(b"now")[..], [0x8a, 3, b'n', b'o', b'w']);
        assert_eq!(pong_frame(&[0; 200]).len(), 127);
    }

    #[test]
    fn close_frame_repeats_only_codes_that_may_be_sent() {
        assert_eq!(close_frame(None)[..], [0x88, 0]);
        for code in [1_000, 1_001, 1_009, 3_000, 4_999] {
            assert_eq!(close_frame(Some(code))[2..], code.to_be_bytes(), "{code}");
        }
        for code in [0, 999, 1_004, 1_005, 1_006, 1_015, 2_999, 5_000] {
            assert_eq!(close_frame(Some(code))[2..], 1_002_u16.to_be_bytes(), "{code}");
        }
    }
}
