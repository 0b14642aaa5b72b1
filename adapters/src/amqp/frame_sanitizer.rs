//! Makes frames from the broker safe for lapin to parse. No byte changes its position.
//!
//! RabbitMQ forwards a message's properties as the producer wrote them. Two kinds of properties break lapin:
//! it drops the connection on a short string that is not UTF-8, and headers with thousands of nested tables
//! overflow the stack and crash the process. The broker would redeliver such a message after every reconnect,
//! so one message could keep all nodes down.
//!
//! Therefore bytes that are not UTF-8 become `?`, and tables or arrays that are nested too deep become
//! strings. For that, only the byte with the type changes: tables, arrays and strings have the same layout, a
//! length and that many bytes.

/// The type of a method frame.
pub(super) const METHOD: u8 = 1;
/// The type of a frame with a message's properties.
pub(super) const HEADER: u8 = 2;

/// How deep tables and arrays in the headers may be nested. The table of all headers does not count.
const MAX_DEPTH: u8 = 16;

/// Sanitizes the payload of a frame in place.
pub(super) fn sanitize(frame_type: u8, payload: &mut [u8]) {
    // The rest of a truncated or unknown payload stays as it is: lapin reports the protocol error.
    let _ = match frame_type {
        METHOD => Cursor(payload).sanitize_method(),
        HEADER => Cursor(payload).sanitize_header(),
        _ => Some(()),
    };
}

/// The bytes of a payload that are not parsed yet. Its functions return `None` if the payload is truncated or has
/// a field of an unknown type.
struct Cursor<'a>(&'a mut [u8]);

impl<'a> Cursor<'a> {
    /// Sanitizes the two methods that contain texts of a producer (the exchange and the routing key):
    /// `basic.deliver` (class 60, method 60) and `basic.get-ok` (class 60, method 71).
    fn sanitize_method(mut self) -> Option<()> {
        const DELIVERY_TAG: usize = 8;
        const REDELIVERED: usize = 1;
        match (self.number(2)?, self.number(2)?) {
            (60, 60) => {
                // The consumer tag.
                self.sanitize_short_text()?;
                self.skip(DELIVERY_TAG + REDELIVERED)?;
            }
            (60, 71) => self.skip(DELIVERY_TAG + REDELIVERED)?,
            _ => return Some(()),
        }
        // The exchange and the routing key.
        self.sanitize_short_text()?;
        self.sanitize_short_text()
    }

    /// Sanitizes the fourteen properties of class `basic`. Each is present if its flag is set.
    fn sanitize_header(mut self) -> Option<()> {
        // The class, the weight and the size of the body.
        self.skip(2 + 2 + 8)?;
        let flags = self.number(2)?;
        for property in 0..14 {
            if flags & (0x8000 >> property) == 0 {
                continue;
            }
            match property {
                // The headers.
                2 => Cursor(self.long()?).sanitize_table(MAX_DEPTH)?,
                // The delivery mode and the priority.
                3 | 4 => self.skip(1)?,
                // The timestamp.
                9 => self.skip(8)?,
                _ => self.sanitize_short_text()?,
            }
        }
        Some(())
    }

    fn sanitize_table(mut self, depth: u8) -> Option<()> {
        while !self.0.is_empty() {
            self.sanitize_short_text()?;
            self.sanitize_value(depth)?;
        }
        Some(())
    }

    fn sanitize_array(mut self, depth: u8) -> Option<()> {
        while !self.0.is_empty() {
            self.sanitize_value(depth)?;
        }
        Some(())
    }

    /// Sanitizes a value in a table or array. `depth` is how much deeper tables and arrays may be nested. The
    /// types are those of RabbitMQ's errata to AMQP 0-9-1.
    fn sanitize_value(&mut self, depth: u8) -> Option<()> {
        let [kind] = self.take(1)? else { return None };
        match *kind {
            b'F' | b'A' if depth == 0 => {
                *kind = b'S';
                self.long().map(drop)
            }
            b'F' => Cursor(self.long()?).sanitize_table(depth - 1),
            b'A' => Cursor(self.long()?).sanitize_array(depth - 1),
            b'S' | b'x' => self.long().map(drop),
            b't' | b'b' | b'B' => self.skip(1),
            b's' | b'U' | b'u' => self.skip(2),
            b'I' | b'i' | b'f' => self.skip(4),
            b'D' => self.skip(5),
            b'L' | b'l' | b'd' | b'T' => self.skip(8),
            b'V' => Some(()),
            _ => None,
        }
    }

    /// Takes a byte string that is preceded by its length in four bytes.
    fn long(&mut self) -> Option<&'a mut [u8]> {
        let length = self.number(4)?;
        self.take(length)
    }

    /// Takes and sanitizes a text that is preceded by its length in one byte.
    fn sanitize_short_text(&mut self) -> Option<()> {
        let length = self.number(1)?;
        self.take(length).map(sanitize_text)
    }

    /// Takes an unsigned number in network byte order.
    fn number(&mut self, bytes: usize) -> Option<usize> {
        let bytes = self.take(bytes)?;
        Some(bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    fn skip(&mut self, bytes: usize) -> Option<()> {
        self.take(bytes).map(drop)
    }

    fn take(&mut self, bytes: usize) -> Option<&'a mut [u8]> {
        let (next, rest) = std::mem::take(&mut self.0).split_at_mut_checked(bytes)?;
        self.0 = rest;
        Some(next)
    }
}

/// Replaces each byte that is not a part of valid UTF-8 with `?`.
fn sanitize_text(mut text: &mut [u8]) {
    while let Err(error) = std::str::from_utf8(text) {
        let begin = error.valid_up_to();
        let end = error.error_len().map_or(text.len(), |length| begin + length);
        text[begin..end].fill(b'?');
        text = &mut text[end..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short(text: &[u8]) -> Vec<u8> {
        [&[u8::try_from(text.len()).unwrap()], text].concat()
    }

    fn long(bytes: &[u8]) -> Vec<u8> {
        [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
    }

    /// The payload of `basic.deliver` from the exchange `shop`.
    fn deliver(routing_key: &[u8]) -> Vec<u8> {
        let method = [0, 60, 0, 60];
        let delivery_tag_and_redelivered = [0, 0, 0, 0, 0, 0, 0, 0xff, 1];
        let texts = [short(b"shop"), short(routing_key)].concat();
        [&method[..], &short(b"ctag"), &delivery_tag_and_redelivered, &texts].concat()
    }

    /// The payload of a content header for a body of 9 bytes.
    fn header(flags: u16, properties: &[u8]) -> Vec<u8> {
        let head = [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
        [&head[..], &flags.to_be_bytes(), properties].concat()
    }

    fn sanitized(frame_type: u8, mut payload: Vec<u8>) -> Vec<u8> {
        sanitize(frame_type, &mut payload);
        payload
    }

    #[test]
    fn valid_frames_are_unchanged() {
        let table = [
            short("x-ä".as_bytes()),
            vec![b'S'],
            long(&[0xff, 0xfe]),
            short(b"n"),
            vec![b'l', 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            short(b"a"),
            vec![b'A'],
            long(&[b't', 0xff, b'V', b'D', 0xff, 0xff, 0xff, 0xff, 0xff]),
        ]
        .concat();
        let properties = [
            short(b"application/json"),
            short(b"utf-8"),
            long(&table),
            vec![2, 0xff],
            short(b"c"),
            short(b"r"),
            short(b"1"),
            short("日本".as_bytes()),
            vec![0xff; 8],
            short(b"t"),
            short(b"u"),
            short(b"a"),
            short(b""),
        ]
        .concat();
        for (frame_type, payload) in [
            (METHOD, deliver("ключ".as_bytes())),
            // connection.close, whose text is not sanitized.
            (METHOD, vec![0, 10, 0, 50, 0xff, 0xff, 3, 0xff, 0xff, 0xff]),
            // The flags of all fourteen properties.
            (HEADER, header(0xfffc, &properties)),
            // A body frame and a heartbeat.
            (3, vec![0xff; 100]),
            (8, vec![]),
        ] {
            assert_eq!(sanitized(frame_type, payload.clone()), payload);
        }
    }

    #[test]
    fn invalid_utf_8_becomes_question_marks_in_every_short_string() {
        assert_eq!(sanitized(METHOD, deliver(b"a\xff\xc3\xa4\xc3")), deliver("a?ä?".as_bytes()));
        let get_ok = |key: &[u8]| {
            let begin = [0, 60, 0, 71, 0, 0, 0, 0, 0, 0, 0, 7, 0];
            [&begin[..], &short(b""), &short(key), &[0, 0, 0, 1]].concat()
        };
        assert_eq!(sanitized(METHOD, get_ok(b"\xff")), get_ok(b"?"));
        // The flags of the correlation id and of the message id.
        for flag in [0x0400, 0x0080] {
            let invalid = header(flag, &short(b"\xf0\x9f"));
            assert_eq!(sanitized(HEADER, invalid), header(flag, &short(b"??")));
        }
        let nested = |key: &[u8]| {
            let inner = [short(key), vec![b'V']].concat();
            let array = [vec![b'F'], long(&inner)].concat();
            let table = [short(key), vec![b'A'], long(&array)].concat();
            header(0x2000, &long(&table))
        };
        assert_eq!(sanitized(HEADER, nested(b"k\xfe")), nested(b"k?"));
    }

    /// The payload of a content header with `depth` nested tables, of which the innermost has the type
    /// `innermost_type`.
    fn tables(depth: usize, innermost_type: u8) -> Vec<u8> {
        let mut table = vec![];
        for level in 0..depth {
            let kind = if level == 0 { innermost_type } else { b'F' };
            table = [short(b"a"), vec![kind], long(&table)].concat();
        }
        header(0x2000, &long(&table))
    }

    #[test]
    fn tables_nested_too_deep_become_strings() {
        let too_deep = usize::from(MAX_DEPTH) + 1;
        assert_eq!(sanitized(HEADER, tables(too_deep - 1, b'F')), tables(too_deep - 1, b'F'));
        assert_eq!(sanitized(HEADER, tables(too_deep, b'F')), tables(too_deep, b'S'));
        let mut deepest = tables(15_000, b'F');
        let length = deepest.len();
        sanitize(HEADER, &mut deepest);
        assert_eq!(deepest.len(), length);
        assert_eq!(sanitized(HEADER, deepest.clone()), deepest, "a second pass changes nothing");
    }

    #[test]
    fn truncated_payloads_keep_their_length() {
        for whole in [deliver(b"\xff"), tables(3, b'F'), header(0xffff, &[0xff; 40])] {
            for length in 0..whole.len() {
                for frame_type in [METHOD, HEADER] {
                    assert_eq!(sanitized(frame_type, whole[..length].to_vec()).len(), length);
                }
            }
        }
    }
}
