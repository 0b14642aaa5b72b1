use std::future::poll_fn;
use std::iter;

use proptest::prelude::*;

use super::fuzzing::SplitReads;
use super::*;

const LIMIT: usize = 1_000;

/// A masked frame, as a client sends it. `first` is its first byte: the flags and the opcode.
pub(in crate::transport) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    frame_announcing(first, payload.len() as u64, payload)
}

/// A masked frame whose head announces a payload of `length` bytes.
fn frame_announcing(first: u8, length: u64, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![first];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ ..=125), _) => frame.push(0x80 | short),
        (_, Ok(medium)) => {
            frame.push(0xfe);
            frame.extend(medium.to_be_bytes());
        }
        _ => {
            frame.push(0xff);
            frame.extend(length.to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// All frames of this input, and the error that ends it. Each read returns `size` bytes.
fn read_all(size: usize, wire: &[u8]) -> (Vec<Frame>, ReadError) {
    fuzzing::read_all(LIMIT, SplitReads::of(wire, iter::repeat(size)))
}

/// The frames of valid input.
fn frames_of(wire: &[u8]) -> Vec<Frame> {
    let (frames, end) = read_all(usize::MAX, wire);
    assert!(matches!(end, ReadError::Gone), "{end}");
    frames
}

/// The number of frames before an invalid one, and the error for that one.
fn rejected(wire: &[u8]) -> (usize, String) {
    let (frames, end) = read_all(usize::MAX, wire);
    (frames.len(), end.to_string())
}

fn text(text: &str) -> Frame {
    Frame::Text(text.to_owned())
}

#[test]
fn messages_are_read_however_the_reads_are_split() {
    let wire = [
        frame(FINAL | TEXT, b"2"),
        frame(FINAL | TEXT, "42[\"Übung\"]".as_bytes()),
        frame(FINAL | BINARY, &[7; 300]),
        frame(FINAL | TEXT, b""),
        frame(FINAL | PONG, b"x"),
    ];
    let expected =
        [text("2"), text("42[\"Übung\"]"), Frame::Binary(vec![7; 300]), text(""), Frame::Pong];
    for size in [1, 2, 3, 7, 64, usize::MAX] {
        let (frames, end) = read_all(size, &wire.concat());
        assert_eq!(frames, expected, "{size}");
        assert!(matches!(end, ReadError::Gone), "{end}");
    }
}

#[test]
fn fragments_are_joined_and_control_frames_may_be_between_them() {
    let wire = [
        // Two fragments may split a character.
        frame(TEXT, &"42[\"ü".as_bytes()[..5]),
        frame(FINAL | PING, b"now"),
        frame(CONTINUATION, b""),
        frame(FINAL | CONTINUATION, &"ü\"]".as_bytes()[1..]),
        frame(FINAL | TEXT, b"3"),
    ];
    let expected = [
        Frame::Fragment,
        Frame::Ping(b"now".to_vec()),
        Frame::Fragment,
        text("42[\"ü\"]"),
        text("3"),
    ];
    assert_eq!(frames_of(&wire.concat()), expected);
}

#[test]
fn frame_that_breaks_the_protocol_is_rejected() {
    for (error, wire) in [
        ("reserved bit set", frame(FINAL | TEXT | 0x40, b"")),
        ("reserved opcode", frame(FINAL | 0x3, b"")),
        ("reserved opcode", frame(FINAL | 0xb, b"")),
        ("frame is not masked", vec![FINAL | TEXT, 1, b'2']),
        ("fragmented control frame", frame(PING, b"")),
        ("control frame too large", frame(FINAL | PING, &[0; 126])),
        ("continuation frame without a message", frame(FINAL | CONTINUATION, b"")),
        ("text is not UTF-8", frame(FINAL | TEXT, b"\xff")),
        ("malformed close frame", frame(FINAL | CLOSE, &[3])),
        ("malformed close frame", frame(FINAL | CLOSE, &[3, 0xe8, 0xff])),
    ] {
        assert_eq!(rejected(&wire), (0, error.to_owned()));
    }
    let within = [frame(TEXT, b"4"), frame(FINAL | TEXT, b"2")].concat();
    assert_eq!(rejected(&within), (1, "data frame inside a fragmented message".to_owned()));
}

#[test]
fn message_that_is_too_large_is_rejected_by_its_head() {
    let too_large = ReadError::TooLarge.to_string();
    let fits = frame(FINAL | TEXT, &[b'x'; LIMIT]);
    assert_eq!(frames_of(&fits), [text(&"x".repeat(LIMIT))]);
    for length in [LIMIT as u64 + 1, 1 << 62, u64::MAX] {
        let head = frame_announcing(FINAL | BINARY, length, b"");
        assert_eq!(rejected(&head), (0, too_large.clone()), "{length}");
    }
    let half = [b'x'; LIMIT / 2 + 1];
    let halves = [frame(TEXT, &half), frame(CONTINUATION, &half)].concat();
    assert_eq!(rejected(&halves), (1, too_large));
}

#[tokio::test]
async fn message_that_is_too_large_is_read_after_the_limit_is_raised() {
    let half = [b'x'; LIMIT / 2 + 1];
    let halves = [frame(TEXT, &half), frame(FINAL | CONTINUATION, &half)].concat();
    let whole = frame(FINAL | TEXT, &[b'y'; LIMIT + 1]);
    let wire = [halves, whole].concat();
    let mut io = SplitReads::of(&wire, iter::repeat(100));
    let mut reader = FrameReader::new(10);
    let mut messages = Vec::new();
    for limit in [LIMIT / 2, LIMIT, 2 * LIMIT] {
        assert!(matches!(
            poll_fn(|cx| reader.poll_next(cx, &mut io)).await,
            Err(ReadError::TooLarge)
        ));
        assert!(reader.raise_limit(limit));
        assert!(!reader.raise_limit(limit));
        while let Ok(frame) = poll_fn(|cx| reader.poll_next(cx, &mut io)).await {
            messages.push(frame);
        }
    }
    let texts = ["x".repeat(LIMIT + 2), "y".repeat(LIMIT + 1)].map(Frame::Text);
    let expected: Vec<_> = iter::once(Frame::Fragment).chain(texts).collect();
    assert_eq!(messages, expected);
}

#[test]
fn close_frame_has_a_status_code_or_none() {
    assert_eq!(frames_of(&frame(FINAL | CLOSE, b"")), [Frame::Close(None)]);
    let going_away = frame(FINAL | CLOSE, b"\x03\xe9bye");
    assert_eq!(frames_of(&going_away), [Frame::Close(Some(1_001))]);
}

#[tokio::test]
async fn idle_reader_has_no_buffer() {
    let mut reader = FrameReader::new(LIMIT);
    let wire = [frame(TEXT, b"4"), frame(FINAL | CONTINUATION, b"2"), frame(FINAL | TEXT, b"3")];
    let wire = wire.concat();
    let mut io = SplitReads::of(&wire, iter::empty());
    while poll_fn(|cx| reader.poll_next(cx, &mut io)).await.is_ok() {}
    assert_eq!((reader.buffer.capacity(), reader.fragments.is_none()), (0, true));
    assert!(size_of::<FrameReader>() <= 72, "{}", size_of::<FrameReader>());
}

#[tokio::test]
async fn announced_length_is_not_allocated() {
    let mut reader = FrameReader::new(100_000);
    let head = frame_announcing(FINAL | TEXT, 100_000, b"4");
    let mut io = SplitReads::of(&head, iter::empty());
    while poll_fn(|cx| reader.poll_next(cx, &mut io)).await.is_ok() {}
    assert!(reader.buffer.capacity() < 100, "{}", reader.buffer.capacity());
}

proptest! {
    #[test]
    fn frames_do_not_depend_on_the_size_of_reads(wire: Vec<u8>, size in 1..50_usize) {
        let (frames, _) = read_all(size, &wire);
        let (at_once, _) = read_all(usize::MAX, &wire);
        prop_assert_eq!(frames, at_once);
    }

    #[test]
    fn fragmented_messages_are_received_whole(
        messages in prop::collection::vec("[a-zäß€]{0,40}", 0..8),
        cut in 1..20_usize,
        size in 1..50_usize,
    ) {
        let mut wire = Vec::new();
        for message in &messages {
            let parts: Vec<_> = message.as_bytes().chunks(cut).collect();
            let last = parts.len().saturating_sub(1);
            if parts.is_empty() {
                wire.extend(frame(FINAL | TEXT, b""));
            }
            for (index, part) in parts.into_iter().enumerate() {
                let opcode = if index == 0 { TEXT } else { CONTINUATION };
                let is_final = if index == last { FINAL } else { 0 };
                wire.extend(frame(is_final | opcode, part));
            }
        }
        let (mut frames, _) = read_all(size, &wire);
        frames.retain(|frame| *frame != Frame::Fragment);
        let expected: Vec<_> = messages.iter().map(|message| text(message)).collect();
        prop_assert_eq!(frames, expected);
    }
}
