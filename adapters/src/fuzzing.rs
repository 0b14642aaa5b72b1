//! Fuzz targets for the parsers of untrusted input. They need no server and no connection. Each function panics if a
//! guarantee is broken.
//!
//! The inputs have simple formats, so that the corpus in `tests/fuzz/corpus` can be written by hand. The tests
//! below pass the inputs of the corpus to their targets.

pub use crate::amqp::fuzzing::frame as amqp_frame;
pub use crate::inbound::amqp::fuzzing::message as amqp_message;
pub use crate::inbound::socketio::fuzzing::{payload as socket_payload, posted_packets, websocket};
pub use crate::outbound::jwt::fuzzing::token;
pub use crate::outbound::socketio::fuzzing::polling;

use crate::wire::Cursor;

/// Parses the cursor of an inbox page. Checks that each cursor has only one textual form.
///
/// # Panics
/// If the check fails.
pub fn cursor(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(cursor) = Cursor::parse(text) {
        assert_eq!(cursor.to_string(), text);
    }
}

/// The bytes before and after the first line break. Without a line break, the second part is empty.
pub(crate) fn split_first_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    (&bytes[..end], bytes.get(end + 1..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    fn run_corpus(target: &str, run: impl Fn(&[u8])) {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus");
        let files: Vec<_> = fs::read_dir(corpus.join(target)).unwrap().flatten().collect();
        assert!(files.len() >= 10, "the corpus is incomplete");
        for file in files {
            let bytes = fs::read(file.path()).unwrap();
            // Printed only if the test fails.
            println!("{}", file.path().display());
            run(&bytes);
        }
    }

    #[test]
    fn corpus_of_amqp_messages_passes() {
        run_corpus("amqp_message", super::amqp_message);
    }

    #[test]
    fn corpus_of_amqp_frames_passes() {
        run_corpus("amqp_frame", super::amqp_frame);
    }

    #[test]
    fn corpus_of_socket_payloads_passes() {
        run_corpus("socket_payload", super::socket_payload);
    }

    #[test]
    fn corpus_of_websocket_input_passes() {
        run_corpus("websocket", super::websocket);
    }

    #[test]
    fn corpus_of_posted_packets_passes() {
        run_corpus("posted_packets", super::posted_packets);
    }

    #[test]
    fn corpus_of_polls_passes() {
        run_corpus("polling", super::polling);
    }

    #[test]
    fn corpus_of_cursors_passes() {
        run_corpus("cursor", super::cursor);
    }

    #[test]
    fn corpus_of_tokens_passes() {
        run_corpus("token", super::token);
    }
}
