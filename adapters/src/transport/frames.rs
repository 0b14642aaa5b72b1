//! The frames of a WebSocket (RFC 6455, section 5.2) as a server writes them: unmasked.

use bytes::Bytes;

/// The Socket.IO packet that a session ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastWord {
    /// The device was not let in.
    ConnectError,
    /// The device was sent away for good.
    Disconnect,
}

impl LastWord {
    const ALL: [Self; 2] = [Self::ConnectError, Self::Disconnect];

    /// How it begins, behind Engine.IO's own `4` for a message.
    const fn begins(self) -> &'static [u8] {
        match self {
            Self::ConnectError => b"44",
            Self::Disconnect => b"41",
        }
    }

    /// Whether it is among the packets of a polling answer, which 0x1E separates.
    pub(super) fn is_in(self, payload: &[u8]) -> bool {
        payload.split(|byte| *byte == 0x1e).any(|packet| packet.starts_with(self.begins()))
    }
}

pub(super) const CONTINUATION: u8 = 0x0;
pub(super) const TEXT: u8 = 0x1;
pub(super) const BINARY: u8 = 0x2;
pub(super) const CLOSE: u8 = 0x8;
pub(super) const PING: u8 = 0x9;
pub(super) const PONG: u8 = 0xa;
pub(super) const FINAL: u8 = 0x80;

/// A whole text frame around that text, which comes in pieces.
pub(crate) fn text_frame(text: &[&str]) -> Bytes {
    let length: usize = text.iter().map(|piece| piece.len()).sum();
    let mut frame = Vec::with_capacity(length + 10);
    frame.push(FINAL | TEXT);
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
    for piece in text {
        frame.extend_from_slice(piece.as_bytes());
    }
    frame.into()
}

/// The answer to a ping, which carries what the ping did: as much as a control frame may at most.
pub(crate) fn pong_frame(payload: &[u8]) -> Bytes {
    control_frame(PONG, payload)
}

/// The server's part of the closing handshake, with that status code.
pub(crate) fn close_frame(status: Option<u16>) -> Bytes {
    match status {
        Some(status) => control_frame(CLOSE, &status.to_be_bytes()),
        None => Bytes::from_static(&[FINAL | CLOSE, 0]),
    }
}

fn control_frame(opcode: u8, payload: &[u8]) -> Bytes {
    const MOST: usize = 125;
    let payload = &payload[..payload.len().min(MOST)];
    let length = u8::try_from(payload.len()).unwrap_or_default();
    [&[FINAL | opcode, length], payload].concat().into()
}

/// The head of a frame: how long it is, the frame's length with it, and its kind.
struct Head {
    length: usize,
    frame: usize,
    opcode: u8,
}

impl Head {
    /// `None` if it is not there as a whole.
    fn read(bytes: &[u8]) -> Option<Self> {
        let (length, payload) = match bytes.get(1)? & 0x7f {
            126 => (4, u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
            127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)),
            short => (2, u64::from(short)),
        };
        let frame = length + usize::try_from(payload).ok()?;
        Some(Self { length, frame, opcode: bytes[0] & 0x0f })
    }
}

/// Follows what is written to a WebSocket, so that one knows where a frame ends and what was said.
#[derive(Debug, Default)]
pub(super) struct FrameScan {
    /// How much of the frame under way is not written yet.
    left: usize,
    said: [bool; LastWord::ALL.len()],
    has_closed: bool,
    is_lost: bool,
}

impl FrameScan {
    /// Of these bytes so many were written now. They begin where the last ones ended, and whatever
    /// frames begin in them are shown to `whole`, as far as they are there as a whole.
    pub(super) fn advance(&mut self, bytes: &[u8], written: usize, mut whole: impl FnMut(&[u8])) {
        let mut at = self.left.min(written);
        self.left -= at;
        while at < written && !self.is_lost {
            let Some(head) = Head::read(&bytes[at..]) else {
                self.is_lost = true;
                return;
            };
            let end = at + head.frame;
            if let Some(frame) = bytes.get(at..end) {
                self.note(head.opcode, &frame[head.length..]);
                whole(frame);
            }
            self.left = end.saturating_sub(written);
            at = end.min(written);
        }
    }

    fn note(&mut self, opcode: u8, payload: &[u8]) {
        self.has_closed |= opcode == CLOSE;
        for word in LastWord::ALL {
            self.said[word as usize] |= payload.starts_with(word.begins());
        }
    }

    /// Whether another frame may be written now.
    pub(super) fn is_between_frames(&self) -> bool {
        self.left == 0
    }

    /// Whether what was written is not made of whole frames, so that nobody knows where one ends.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// How many bytes of the frame under way are to be written.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// Whether the closing handshake has begun: nothing may follow.
    pub(super) fn has_closed(&self) -> bool {
        self.has_closed
    }

    /// Whether this was said, to its end.
    pub(super) fn has_said(&self, word: LastWord) -> bool {
        self.left == 0 && self.said[word as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows the scan those bytes in writes of that size, as a buffer that is emptied bit by bit.
    fn scanned(bytes: &[u8], step: usize) -> (FrameScan, Vec<Vec<u8>>) {
        let (mut scan, mut seen) = (FrameScan::default(), Vec::new());
        let mut rest = bytes;
        while !rest.is_empty() {
            let count = step.min(rest.len());
            scan.advance(rest, count, |frame| seen.push(frame.to_vec()));
            rest = &rest[count..];
        }
        (scan, seen)
    }

    #[test]
    fn a_text_frame_has_the_shortest_head_there_is() {
        for (length, head) in [(125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let frame = text_frame(&["4", &"x".repeat(length - 1)]);
            assert_eq!(frame.len(), length + head, "{length}");
            let read = Head::read(&frame).unwrap();
            assert_eq!((read.length, read.frame, read.opcode), (head, frame.len(), TEXT));
        }
    }

    #[test]
    fn control_frames_carry_what_they_may() {
        assert_eq!(pong_frame(b"now")[..], [0x8a, 3, b'n', b'o', b'w']);
        assert_eq!(pong_frame(&[0; 200]).len(), 127);
        assert_eq!(close_frame(None)[..], [0x88, 0]);
        assert_eq!(close_frame(Some(1_001))[..], [0x88, 2, 0x03, 0xe9]);
    }

    #[test]
    fn frames_are_followed_however_they_are_cut() {
        let frames = ["2".to_owned(), format!("42[\"a\",\"{}\"]", "x".repeat(300)), "3".to_owned()];
        let frames: Vec<_> = frames.iter().map(|text| text_frame(&[text])).collect();
        let wire = frames.concat();
        for step in [1, 2, 3, 7, 100, wire.len()] {
            let (scan, seen) = scanned(&wire, step);
            assert_eq!(seen, frames, "{step}");
            assert!(scan.is_between_frames(), "{step}");
        }
    }

    #[test]
    fn a_frame_under_way_says_how_much_of_it_is_left() {
        let frame = text_frame(&["42[]"]);
        let mut scan = FrameScan::default();
        scan.advance(&frame, 4, |_| {});
        assert!(!scan.is_between_frames());
        assert_eq!(scan.left(), frame.len() - 4);
    }

    #[test]
    fn a_last_word_is_said_once_all_of_it_is_written() {
        let frame = text_frame(&["44{\"message\":\"token_invalid\"}"]);
        let mut scan = FrameScan::default();
        scan.advance(&frame, 5, |_| {});
        assert!(!scan.has_said(LastWord::ConnectError));
        scan.advance(&frame[5..], frame.len() - 5, |_| {});
        assert!(scan.has_said(LastWord::ConnectError));
        assert!(!scan.has_said(LastWord::Disconnect));
    }

    #[test]
    fn nothing_follows_a_close_frame() {
        let (scan, _) = scanned(&[FINAL | CLOSE, 2, 0x03, 0xe8], 4);
        assert!(scan.has_closed());
    }

    #[test]
    fn a_last_word_is_found_among_other_packets() {
        assert!(LastWord::ConnectError.is_in(b"2\x1e44{\"message\":\"token_invalid\"}"));
        assert!(LastWord::ConnectError.is_in(b"44/notifications,{}"));
        assert!(LastWord::Disconnect.is_in(b"42[\"exception\",{}]\x1e41"));
        assert!(!LastWord::Disconnect.is_in(b"42[\"41\"]"));
        assert!(!LastWord::ConnectError.is_in(b"6"));
    }
}
