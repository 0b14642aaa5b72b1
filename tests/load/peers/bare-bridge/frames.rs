//! WebSocket frames (RFC 6455) without fragments: writes the unmasked frames of a server, and reads the
//! masked ones of a client.

const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;

pub(crate) const TEXT: u8 = 0x1;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xA;

/// Appends a text frame made of these parts.
pub(crate) fn text(out: &mut Vec<u8>, parts: &[&str]) {
    header(out, TEXT, parts.iter().map(|part| part.len()).sum());
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}

/// Appends a control frame.
pub(crate) fn control(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    header(out, opcode, payload.len());
    out.extend_from_slice(payload);
}

fn header(out: &mut Vec<u8>, opcode: u8, length: usize) {
    out.push(FIN | opcode);
    if let Ok(short @ 0..=125) = u8::try_from(length) {
        out.push(short);
    } else if let Ok(medium) = u16::try_from(length) {
        out.push(126);
        out.extend_from_slice(&medium.to_be_bytes());
    } else {
        out.push(127);
        out.extend_from_slice(&(length as u64).to_be_bytes());
    }
}

/// A frame of a client.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) opcode: u8,
    pub(crate) payload: Vec<u8>,
}

/// An unsupported frame: a fragment, an unmasked frame, or one of 64 KiB or more.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UnsupportedFrame;

impl Frame {
    /// Removes the first frame from the bytes; `None` if it is incomplete.
    pub(crate) fn take(bytes: &mut Vec<u8>) -> Result<Option<Self>, UnsupportedFrame> {
        let [first, second, ..] = bytes[..] else { return Ok(None) };
        if first & FIN == 0 || second & MASKED == 0 {
            return Err(UnsupportedFrame);
        }
        let (at, length) = match (second & !MASKED, &bytes[2..]) {
            (126, [a, b, ..]) => (4, u16::from_be_bytes([*a, *b]).into()),
            (126, _) => return Ok(None),
            // 64 KiB or more.
            (127, _) => return Err(UnsupportedFrame),
            (short, _) => (2, usize::from(short)),
        };
        let (start, end) = (at + 4, at + 4 + length);
        if bytes.len() < end {
            return Ok(None);
        }
        let mask = bytes[at..start].iter().cycle();
        let payload = bytes[start..end].iter().zip(mask).map(|(byte, mask)| byte ^ mask).collect();
        bytes.drain(..end);
        Ok(Some(Self { opcode: first & 0x0F, payload }))
    }
}
