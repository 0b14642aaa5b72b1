//! The head of a connection's first request, gathered before anything is made for the connection.

use std::io;

use super::stream::Stream;

/// Waits until the head of a request is there as a whole, to be read from its beginning. Also ends once
/// there is no head to wait for: at the connection's end, past `most` bytes, and with what is no HTTP.
/// Whoever serves the connection finds out by itself.
///
/// What serves HTTP reads into 16 KiB. Here a client that takes its time for its head costs what it has
/// sent, and 1 KiB at least.
pub(super) async fn first_head(stream: &mut Stream, most: usize) -> io::Result<()> {
    use tokio::io::AsyncReadExt as _;

    let mut head = Vec::with_capacity(1_024);
    loop {
        let seen = head.len();
        let count = stream.read_buf(&mut head).await?;
        if count == 0 || head.len() > most || !begins_like_http(&head) || ends_in(&head, seen) {
            stream.put_back(head.into());
            return Ok(());
        }
    }
}

/// A method is a token (RFC 9112, section 3): nothing of TLS's handshake is, nor of most else.
fn begins_like_http(head: &[u8]) -> bool {
    // Line ends before the request line are passed over (section 2.2).
    let line = head.trim_ascii_start();
    line.first().is_none_or(u8::is_ascii_graphic)
}

/// Whether an empty line is in it, of which all but a few bytes may have been seen before.
fn ends_in(head: &[u8], seen: usize) -> bool {
    let unseen = &head[seen.saturating_sub(3)..];
    let has = |end: &[u8]| unseen.windows(end.len()).any(|window| window == end);
    // hyper takes a bare LF for a line end, as section 2.2 allows.
    has(b"\r\n\r\n") || has(b"\n\n") || has(b"\n\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_line_ends_a_head_wherever_the_pieces_were_cut() {
        for whole in ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\nHost: a\n\n"] {
            let whole = whole.as_bytes();
            for cut in 0..whole.len() {
                assert!(!ends_in(&whole[..cut], 0), "{cut}");
                assert!(ends_in(whole, cut), "{cut}");
            }
        }
    }

    #[test]
    fn what_is_no_http_is_not_waited_for() {
        assert!(begins_like_http(b""));
        assert!(begins_like_http(b"\r\nGE"));
        assert!(!begins_like_http(b"\x16\x03\x01"));
        assert!(!begins_like_http(b"\0"));
    }
}
