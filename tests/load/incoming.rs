//! Reading from client connections with almost no memory per connection.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

thread_local! {
    /// One buffer for all connections of a thread, because only one of them reads at a time.
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; 256 * 1024].into());
}

/// Reads once and parses the bytes. `unparsed` has the bytes that earlier calls left. `parse` returns the number of
/// bytes that it used. The end of the stream is an error.
pub(crate) async fn read(
    stream: &mut TcpStream,
    unparsed: &mut Vec<u8>,
    mut parse: impl FnMut(&[u8]) -> io::Result<usize>,
) -> io::Result<()> {
    poll_fn(|context| {
        BUFFER.with_borrow_mut(|buffer| {
            let mut read = ReadBuf::new(buffer);
            ready!(Pin::new(&mut *stream).poll_read(context, &mut read))?;
            Poll::Ready(match read.filled() {
                [] => Err(ErrorKind::UnexpectedEof.into()),
                bytes => parse_after(unparsed, bytes, &mut parse),
            })
        })
    })
    .await
}

/// Parses `unparsed` followed by `bytes`, and leaves the unused bytes in `unparsed`.
pub(crate) fn parse_after(
    unparsed: &mut Vec<u8>,
    bytes: &[u8],
    mut parse: impl FnMut(&[u8]) -> io::Result<usize>,
) -> io::Result<()> {
    if unparsed.is_empty() {
        let used = parse(bytes)?;
        unparsed.extend_from_slice(&bytes[used..]);
        return Ok(());
    }
    unparsed.extend_from_slice(bytes);
    let used = parse(unparsed)?;
    if used == unparsed.len() {
        // Frees the memory, which most connections never need again.
        *unparsed = Vec::new();
    } else {
        unparsed.drain(..used);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unused_bytes_are_parsed_again_with_later_ones() {
        let (mut unparsed, mut lines) = (Vec::new(), Vec::new());
        for bytes in [&b"a\nb"[..], b"", b"c\nd", b"\n"] {
            let whole_lines = |bytes: &[u8]| {
                let used = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
                lines.push(String::from_utf8_lossy(&bytes[..used]).into_owned());
                Ok(used)
            };
            parse_after(&mut unparsed, bytes, whole_lines).unwrap();
        }
        assert_eq!(lines.concat(), "a\nbc\nd\n");
        assert_eq!((unparsed.len(), unparsed.capacity()), (0, 0));
    }
}
