//! What fuzzers feed with bytes: everything that reads what a stranger wrote, as far as that needs
//! neither a server nor a connection. Each function panics where a promise is broken, and that is all
//! that it says.
//!
//! The inputs are kept readable, so that a small corpus can be written and understood by hand; it lies
//! in `tests/fuzz/corpus` and is fed to these functions by an ordinary test as well.

pub use crate::amqp::fuzzing::frame as amqp_frame;
pub use crate::inbound::amqp::fuzzing::message as amqp_message;
pub use crate::inbound::socketio::fuzzing::{payload as socket_payload, posted_packets, websocket};
pub use crate::outbound::jwt::fuzzing::token;
pub use crate::outbound::socketio::fuzzing::polling;

use crate::wire::Cursor;

/// Where a page of an inbox ends, as callers hand it back: a text that is taken is the only one for
/// that place.
///
/// # Panics
/// When that does not hold.
pub fn cursor(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(cursor) = Cursor::parse(text) {
        assert_eq!(cursor.to_string(), text);
    }
}

/// The bytes before and after the first line end.
pub(crate) fn first_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    (&bytes[..end], bytes.get(end + 1..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    fn feed(target: &str, read: impl Fn(&[u8])) {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus");
        let files: Vec<_> = fs::read_dir(corpus.join(target)).unwrap().flatten().collect();
        assert!(files.len() >= 10, "the corpus is there");
        for file in files {
            let bytes = fs::read(file.path()).unwrap();
            // Told only if the test fails: which input it was.
            println!("{}", file.path().display());
            read(&bytes);
        }
    }

    #[test]
    fn the_corpus_of_messages_does_no_harm() {
        feed("amqp_message", super::amqp_message);
    }

    #[test]
    fn the_corpus_of_frames_does_no_harm() {
        feed("amqp_frame", super::amqp_frame);
    }

    #[test]
    fn the_corpus_of_payloads_does_no_harm() {
        feed("socket_payload", super::socket_payload);
    }

    #[test]
    fn the_corpus_of_what_clients_send_does_no_harm() {
        feed("websocket", super::websocket);
    }

    #[test]
    fn the_corpus_of_posted_packets_does_no_harm() {
        feed("posted_packets", super::posted_packets);
    }

    #[test]
    fn the_corpus_of_polls_does_no_harm() {
        feed("polling", super::polling);
    }

    #[test]
    fn the_corpus_of_cursors_does_no_harm() {
        feed("cursor", super::cursor);
    }

    #[test]
    fn the_corpus_of_tokens_does_no_harm() {
        feed("token", super::token);
    }
}
