//! WebSocket frames (RFC 6455): reads the frames of a server, and writes those of a client.

const FINAL_TEXT: u8 = 0x81;
const FINAL_PONG: u8 = 0x8a;
const MASKED: u8 = 0x80;

/// A frame from the server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    Text(&'a [u8]),
    Ping(&'a [u8]),
    Close,
    /// A pong or binary data; ignored.
    Other,
}

/// A masked frame, a fragment, or a frame that is larger than any event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InvalidFrame;

/// Calls `handle` for each complete frame at the front of the bytes. Returns the number of bytes of these frames.
pub(crate) fn read_all(
    bytes: &[u8],
    mut handle: impl FnMut(Frame<'_>),
) -> Result<usize, InvalidFrame> {
    let mut used = 0;
    while let Some((head, payload)) = head(&bytes[used..])? {
        let begin = used + head;
        let Some(payload) = bytes.get(begin..begin + payload) else { break };
        handle(match bytes[used] & 0x0f {
            1 => Frame::Text(payload),
            8 => Frame::Close,
            9 => Frame::Ping(payload),
            _ => Frame::Other,
        });
        used = begin + payload.len();
    }
    Ok(used)
}

/// The lengths of a frame's head and payload; `None` if the head is incomplete.
fn head(bytes: &[u8]) -> Result<Option<(usize, usize)>, InvalidFrame> {
    const LARGEST: u64 = 16 << 20;

    let &[first, second, ref rest @ ..] = bytes else { return Ok(None) };
    if first & 0x80 == 0 || second & MASKED != 0 {
        return Err(InvalidFrame);
    }
    let (head, length) = match second {
        126 => {
            let Some(length) = rest.first_chunk() else { return Ok(None) };
            (4, u64::from(u16::from_be_bytes(*length)))
        }
        127 => {
            let Some(length) = rest.first_chunk() else { return Ok(None) };
            (10, u64::from_be_bytes(*length))
        }
        length => (2, u64::from(length)),
    };
    match usize::try_from(length) {
        Ok(payload) if length <= LARGEST => Ok(Some((head, payload))),
        _ => Err(InvalidFrame),
    }
}

/// Appends a text frame.
pub(crate) fn write_text(out: &mut Vec<u8>, text: &[u8]) {
    write(out, FINAL_TEXT, text);
}

/// Appends a pong.
pub(crate) fn write_pong(out: &mut Vec<u8>, payload: &[u8]) {
    write(out, FINAL_PONG, payload);
}

/// Appends a frame. `first` is its first byte.
fn write(out: &mut Vec<u8>, first: u8, payload: &[u8]) {
    out.push(first);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short @ ..126), _) => out.push(MASKED | short),
        (_, Ok(medium)) => {
            out.push(MASKED + 126);
            out.extend(medium.to_be_bytes());
        }
        _ => {
            out.push(MASKED + 127);
            out.extend((payload.len() as u64).to_be_bytes());
        }
    }
    // A mask of zeros costs the server the same work, and the client none.
    out.extend([0; 4]);
    out.extend(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(bytes: &[u8]) -> (Vec<Vec<u8>>, usize) {
        let mut texts = Vec::new();
        let used = read_all(bytes, |frame| match frame {
            Frame::Text(text) => texts.push(text.to_vec()),
            other => panic!("{other:?}"),
        });
        (texts, used.unwrap())
    }

    fn from_server(text: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        write_text(&mut frame, text);
        // A frame of a server is the same without the mask.
        frame[1] &= !MASKED;
        let mask = frame.len() - text.len() - 4;
        frame.drain(mask..mask + 4);
        frame
    }

    #[test]
    fn complete_frames_are_read_and_an_incomplete_one_is_left() {
        for length in [0, 1, 125, 126, 65_535, 65_536, 70_000] {
            let text = vec![b'a'; length];
            let mut bytes = from_server(&text);
            let whole = bytes.len();
            bytes.extend(from_server(b"next"));
            for cut in [whole, whole + 1, whole + 5] {
                assert_eq!(texts(&bytes[..cut]), (vec![text.clone()], whole), "{length}");
            }
            assert_eq!(texts(&bytes), (vec![text, b"next".to_vec()], bytes.len()));
        }
    }

    #[test]
    fn control_frames_are_distinguished() {
        let mut seen = Vec::new();
        let used = read_all(b"\x89\x01x\x88\x00\x8a\x00", |frame| seen.push(format!("{frame:?}")));
        assert_eq!((used, seen.join(" ")), (Ok(7), "Ping([120]) Close Other".to_owned()));
    }

    #[test]
    fn masked_endless_and_fragmented_frames_are_rejected() {
        for bytes in [&b"\x81\x81"[..], b"\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff", b"\x01\x00"] {
            assert_eq!(read_all(bytes, |_| ()), Err(InvalidFrame));
        }
    }
}
