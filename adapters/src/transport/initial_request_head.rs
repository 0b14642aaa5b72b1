use std::io;

use super::stream::Stream;

/// Waits until the head of the first request for a new hyper connection is complete. Then puts the bytes back, so
/// that hyper reads them. Also returns when no valid head can follow: at the end of the connection, after more than
/// `max` bytes, or if the bytes are not HTTP. hyper detects these cases when it reads the same bytes.
///
/// This saves memory: hyper reads into a buffer of 16 KiB, but here a client that sends its head slowly costs only
/// the bytes that it has sent, and at least 1 KiB.
pub(super) async fn initial_request_head(stream: &mut Stream, max: usize) -> io::Result<()> {
    use tokio::io::AsyncReadExt as _;

    let mut head = Vec::with_capacity(1_024);
    loop {
        let seen = head.len();
        let count = stream.read_buf(&mut head).await?;
        if count == 0 || head.len() > max || !begins_like_http(&head) || ends_head(&head, seen) {
            stream.put_back(head.into());
            return Ok(());
        }
    }
}

/// A method is a token (RFC 9112, section 3). A TLS handshake and most other protocols do not begin with one.
fn begins_like_http(head: &[u8]) -> bool {
    // Empty lines before the request line are skipped (section 2.2).
    let line = head.trim_ascii_start();
    line.first().is_none_or(u8::is_ascii_graphic)
}

/// Whether `head` contains an empty line. The first `seen` bytes were searched before.
fn ends_head(head: &[u8], seen: usize) -> bool {
    // The last three bytes that were searched may be the start of an empty line.
    let unseen = &head[seen.saturating_sub(3)..];
    let has = |end: &[u8]| unseen.windows(end.len()).any(|window| window == end);
    // hyper accepts a bare LF as a line end, as section 2.2 allows.
    has(b"\r\n\r\n") || has(b"\n\n") || has(b"\n\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_line_ends_the_head_wherever_the_reads_are_split() {
        for whole in ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\nHost: a\n\n"] {
            let whole = whole.as_bytes();
            for cut in 0..whole.len() {
                assert!(!ends_head(&whole[..cut], 0), "{cut}");
                assert!(ends_head(whole, cut), "{cut}");
            }
        }
    }

    #[test]
    fn bytes_that_are_not_http_are_detected() {
        assert!(begins_like_http(b""));
        assert!(begins_like_http(b"\r\nGE"));
        assert!(!begins_like_http(b"\x16\x03\x01"));
        assert!(!begins_like_http(b"\0"));
    }
}
