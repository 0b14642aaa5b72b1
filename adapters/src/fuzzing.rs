//! Fuzz targets: every parser of untrusted input that needs neither a server nor a connection. Each
//! function panics when an invariant is violated.
//!
//! The inputs are readable, so that a small corpus can be written by hand. It is in `tests/fuzz/corpus`;
//! the tests below run it too.

pub use crate::amqp::fuzzing::frame as amqp_frame;
pub use crate::inbound::amqp::fuzzing::message as amqp_message;
pub use crate::inbound::socketio::fuzzing::{payload as socket_payload, posted_packets, websocket};
pub use crate::outbound::jwt::fuzzing::token;
pub use crate::outbound::socketio::fuzzing::polling;

use crate::wire::Cursor;

/// Input: the cursor of an inbox page, as callers send it back.
///
/// # Panics
/// When an accepted text is not the only one for its position.
pub fn cursor(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(cursor) = Cursor::parse(text) {
        assert_eq!(cursor.to_string(), text);
    }
}

/// The bytes before and after the first newline.
pub(crate) fn first_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    (&bytes[..end], bytes.get(end + 1..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    fn run_corpus(target: &str, fuzz: impl Fn(&[u8])) {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus");
        let files: Vec<_> = fs::read_dir(corpus.join(target)).unwrap().flatten().collect();
        assert!(files.len() >= 10, "the corpus is complete");
        for file in files {
            let bytes = fs::read(file.path()).unwrap();
            // Printed only if the test fails.
            println!("{}", file.path().display());
            fuzz(&bytes);
        }
    }

    #[test]
    fn amqp_message_accepts_its_corpus() {
        run_corpus("amqp_message", super::amqp_message);
    }

    #[test]
    fn amqp_frame_accepts_its_corpus() {
        run_corpus("amqp_frame", super::amqp_frame);
    }

    #[test]
    fn socket_payload_accepts_its_corpus() {
        run_corpus("socket_payload", super::socket_payload);
    }

    #[test]
    fn websocket_accepts_its_corpus() {
        run_corpus("websocket", super::websocket);
    }

    #[test]
    fn posted_packets_accepts_its_corpus() {
        run_corpus("posted_packets", super::posted_packets);
    }

    #[test]
    fn polling_accepts_its_corpus() {
        run_corpus("polling", super::polling);
    }

    #[test]
    fn cursor_accepts_its_corpus() {
        run_corpus("cursor", super::cursor);
    }

    #[test]
    fn token_accepts_its_corpus() {
        run_corpus("token", super::token);
    }
}
