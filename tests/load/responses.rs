//! A parser for HTTP/1.1 responses with a known length.

use std::io;

/// A complete response at the front of the buffer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Response<'a> {
    pub(crate) status: u16,
    pub(crate) body: &'a [u8],
    /// Length of head and body in bytes.
    pub(crate) length: usize,
}

/// Reads a response; `None` if it is incomplete. A response without `Content-Length` is an error, except a 204.
pub(crate) fn read(bytes: &[u8]) -> io::Result<Option<Response<'_>>> {
    let Some(head) = memchr::memmem::find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let text = String::from_utf8_lossy(&bytes[..head]);
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    let length = match (status, content_length(&text)) {
        (Some(204), None) => Some(0),
        (_, length) => length,
    };
    let (Some(status), Some(length)) = (status, length) else {
        return Err(io::Error::other(format!("response without content-length: {text}")));
    };
    let begin = head + 4;
    let body = bytes.get(begin..begin + length);
    Ok(body.map(|body| Response { status, body, length: begin + length }))
}

fn content_length(head: &str) -> Option<usize> {
    head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn response_ends_after_its_content_length() {
        let bytes = b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\n{}HTTP/1.1";
        let whole = Response { status: 201, body: b"{}", length: 45 };
        assert_eq!(read(bytes).unwrap(), Some(whole));
        for cut in [30, 43, 44] {
            assert_eq!(read(&bytes[..cut]).unwrap(), None);
        }
    }

    #[test]
    fn only_status_204_may_lack_a_length() {
        let empty = Response { status: 204, body: b"", length: 27 };
        assert_eq!(read(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap(), Some(empty));
        assert!(read(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
    }
}
