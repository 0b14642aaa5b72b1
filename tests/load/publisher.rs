//! Publishing to RabbitMQ with hand-written frames: the threads and locks of a client library would cost more
//! CPU than some of the measured servers.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use lapin::uri::AMQPUri;

// The types of frames, and the byte that ends each of them.
const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const END: u8 = 0xce;

// Methods, by the number of their class and their own.
const CONNECTION_START: [u8; 2] = [10, 10];
const CONNECTION_START_OK: [u8; 2] = [10, 11];
const CONNECTION_TUNE: [u8; 2] = [10, 30];
const CONNECTION_TUNE_OK: [u8; 2] = [10, 31];
const CONNECTION_OPEN: [u8; 2] = [10, 40];
const CONNECTION_OPEN_OK: [u8; 2] = [10, 41];
const CHANNEL_OPEN: [u8; 2] = [20, 10];
const CHANNEL_OPEN_OK: [u8; 2] = [20, 11];
const CHANNEL_CLOSE: [u8; 2] = [20, 40];
const CHANNEL_CLOSE_OK: [u8; 2] = [20, 41];

/// The largest body in bytes that this tool sends, in one frame. RabbitMQ allows 128 KiB with the frame's head.
const MAX_BODY: usize = 100_000;

/// A connection with one channel, for one queue.
#[derive(Debug)]
pub(crate) struct Publisher {
    stream: TcpStream,
    /// The frame of `basic.publish` to the queue through the default exchange.
    publish: Vec<u8>,
    /// The flags and values of every message's properties.
    properties: Vec<u8>,
    /// The frames for the next [`flush`](Self::flush).
    out: Vec<u8>,
    /// The broker's version, such as `3.10.8`.
    pub(crate) broker_version: String,
}

impl Publisher {
    /// Connects; blocks until the channel is open. `persistent` sets the delivery mode of messages.
    pub(crate) fn connect(url: &str, queue: &str, persistent: bool) -> anyhow::Result<Self> {
        let uri = AMQPUri::from_str(url).map_err(|error| anyhow!("{url:?}: {error}"))?;
        let authority = uri.authority;
        let stream = TcpStream::connect((authority.host.as_str(), authority.port))
            .with_context(|| format!("no broker at {}:{}", authority.host, authority.port))?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(Duration::from_mins(1)))?;
        stream.set_read_timeout(Some(Duration::from_mins(1)))?;
        let mut this = Self {
            stream,
            publish: Vec::new(),
            properties: properties(persistent),
            out: Vec::new(),
            broker_version: String::new(),
        };
        let user = authority.userinfo;
        let response = format!("\0{}\0{}", user.username, user.password);
        this.stream.write_all(b"AMQP\0\0\x09\x01")?;
        let start = this.next(CONNECTION_START)?;
        this.broker_version = version(&start).unwrap_or_default();
        let start_ok =
            [&long(b"")[..], &short(b"PLAIN")?, &long(response.as_bytes()), &short(b"en_US")?];
        this.method(0, CONNECTION_START_OK, &start_ok.concat())?;
        this.next(CONNECTION_TUNE)?;
        // 10 channels, frames of 128 KiB, no heartbeats.
        this.method(0, CONNECTION_TUNE_OK, &[0, 10, 0, 2, 0, 0, 0, 0])?;
        let open = [&short(uri.vhost.as_bytes())?[..], &short(b"")?, &[0]].concat();
        this.method(0, CONNECTION_OPEN, &open)?;
        this.next(CONNECTION_OPEN_OK)?;
        this.method(1, CHANNEL_OPEN, &short(b"")?)?;
        this.next(CHANNEL_OPEN_OK)?;
        // `basic.publish` with a reserved field, the exchange, the routing key and the flags.
        let publish = [&[0, 60, 0, 40, 0, 0][..], &short(b"")?, &short(queue.as_bytes())?, &[0]];
        append(&mut this.publish, METHOD, 1, &publish.concat());
        Ok(this)
    }

    /// Adds a message for the next [`flush`](Self::flush).
    ///
    /// # Panics
    /// If the body does not fit into one frame.
    pub(crate) fn push(&mut self, body: &[u8]) {
        assert!(body.len() <= MAX_BODY, "the tool writes small events");
        self.out.extend_from_slice(&self.publish);
        // Class and weight (4 bytes), the size of the body (8 bytes), and the properties.
        let size = 12 + self.properties.len();
        append_head(&mut self.out, HEADER, 1, size);
        self.out.extend_from_slice(&[0, 60, 0, 0]);
        self.out.extend_from_slice(&(body.len() as u64).to_be_bytes());
        self.out.extend_from_slice(&self.properties);
        self.out.push(END);
        append(&mut self.out, BODY, 1, body);
    }

    /// Sends the added messages; blocks while the broker accepts no more.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let sent = self.stream.write_all(&self.out);
        self.out.clear();
        sent
    }

    /// Closes the channel. When the broker answers, it has received all messages. Dropping the connection
    /// could lose the messages in flight.
    pub(crate) fn close(mut self) -> anyhow::Result<()> {
        self.flush()?;
        // Reply code 200 without a text, and no method that failed.
        self.method(1, CHANNEL_CLOSE, &[0, 200, 0, 0, 0, 0, 0])?;
        self.next(CHANNEL_CLOSE_OK).map(drop)
    }

    /// The number of bytes to [`flush`](Self::flush).
    pub(crate) fn pending(&self) -> usize {
        self.out.len()
    }

    /// Sends a method.
    fn method(
        &mut self,
        channel: u8,
        [class, method]: [u8; 2],
        arguments: &[u8],
    ) -> io::Result<()> {
        append(&mut self.out, METHOD, channel, &[&[0, class, 0, method], arguments].concat());
        self.flush()
    }

    /// Reads the next frame and returns its payload. Fails if it is not this method.
    fn next(&mut self, [class, method]: [u8; 2]) -> anyhow::Result<Vec<u8>> {
        let mut head = [0; 7];
        self.stream.read_exact(&mut head).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => anyhow!("the broker closed the connection during login"),
            _ => error.into(),
        })?;
        let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
        let mut payload = vec![0; usize::try_from(size)? + 1];
        self.stream.read_exact(&mut payload)?;
        ensure!(
            payload[..4] == [0, class, 0, method],
            "the broker sent {:?} instead of {class}.{method}",
            &payload[..4]
        );
        Ok(payload)
    }
}

/// The flags, and the values of `content_type` and `delivery_mode` in this order.
fn properties(persistent: bool) -> Vec<u8> {
    let mut properties = vec![0x90, 0x00, 16];
    properties.extend_from_slice(b"application/json");
    properties.push(if persistent { 2 } else { 1 });
    properties
}

/// The value of `version` in the table of `connection.start`.
fn version(start: &[u8]) -> Option<String> {
    const KEY: &[u8] = b"\x07versionS";

    let value = &start[memchr::memmem::find(start, KEY)? + KEY.len()..];
    let (length, value) = value.split_first_chunk()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    Some(String::from_utf8_lossy(value.get(..length)?).into_owned())
}

fn short(text: &[u8]) -> anyhow::Result<Vec<u8>> {
    let length = u8::try_from(text.len()).context("a name has at most 255 bytes")?;
    Ok([&[length], text].concat())
}

fn long(text: &[u8]) -> Vec<u8> {
    [&size(text.len())[..], text].concat()
}

fn size(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).expect("frames are small").to_be_bytes()
}

fn append(out: &mut Vec<u8>, kind: u8, channel: u8, payload: &[u8]) {
    append_head(out, kind, channel, payload.len());
    out.extend_from_slice(payload);
    out.push(END);
}

fn append_head(out: &mut Vec<u8>, kind: u8, channel: u8, length: usize) {
    out.extend_from_slice(&[kind, 0, channel]);
    out.extend_from_slice(&size(length));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_has_kind_channel_size_and_end() {
        let mut out = Vec::new();
        append(&mut out, BODY, 1, b"hi");
        assert_eq!(out, [3, 0, 1, 0, 0, 0, 2, b'h', b'i', 0xce]);
    }

    #[test]
    fn broker_version_is_read() {
        let start = b"\0\x0a\0\x0a\x07productS\0\0\0\x08RabbitMQ\x07versionS\0\0\0\x063.10.8\x01x";
        assert_eq!(version(start).as_deref(), Some("3.10.8"));
        assert_eq!(version(b"nothing"), None);
    }
}
