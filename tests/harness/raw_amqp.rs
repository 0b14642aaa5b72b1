//! AMQP 0-9-1, byte for byte: messages that no client library would publish.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;

/// The property flags of a message, and its encoded properties.
#[derive(Debug)]
pub struct Properties(u16, Vec<u8>);

/// A `correlation_id` of any bytes.
///
/// # Panics
/// When there are more than 255.
pub fn correlation_id(bytes: &[u8]) -> Properties {
    Properties(1 << 10, short(bytes))
}

/// Headers `{"a":{"a":{…}}}`.
///
/// # Panics
/// When they are too deep for a length of four bytes.
pub fn nested_headers(depth: usize) -> Properties {
    // Built from the outside in: copying the inner tables at each level would take quadratic time.
    let length = |level: usize| u32::try_from(level * 7).expect("it fits").to_be_bytes();
    let mut table = length(depth).to_vec();
    for level in (0..depth).rev() {
        table.extend([1, b'a', b'F']);
        table.extend(length(level));
    }
    Properties(1 << 13, table)
}

/// Publishes a message directly to a queue, as the user in the URL, and waits for the confirm.
///
/// # Panics
/// When the broker does not confirm it.
pub async fn publish(url: &str, queue: &str, properties: &Properties, body: &[u8]) {
    let rest = url.strip_prefix("amqp://").expect("a URL without TLS");
    let (user, rest) = rest.split_once('@').expect("it names a user");
    let (address, _) = rest.split_once('/').expect("it names a virtual host");
    let response = format!("\0{}", user.replacen(':', "\0", 1));

    let mut broker = TcpStream::connect(address).await.expect("the broker listens");
    broker.write_all(b"AMQP\0\0\x09\x01").await.expect("it can be sent");
    next(&mut broker, [10, 10]).await;
    let start_ok = [&long(b"")[..], &short(b"PLAIN"), &long(response.as_bytes()), &short(b"en_US")];
    method(&mut broker, 0, [10, 11], &start_ok.concat()).await;
    next(&mut broker, [10, 30]).await;
    method(&mut broker, 0, [10, 31], &[0, 10, 0, 2, 0, 0, 0, 0]).await;
    method(&mut broker, 0, [10, 40], &[&short(b"/")[..], &short(b""), &[0]].concat()).await;
    next(&mut broker, [10, 41]).await;
    method(&mut broker, 1, [20, 10], &short(b"")).await;
    next(&mut broker, [20, 11]).await;
    method(&mut broker, 1, [85, 10], &[0]).await;
    next(&mut broker, [85, 11]).await;

    let to = [&[0, 0][..], &short(b""), &short(queue.as_bytes()), &[0]].concat();
    method(&mut broker, 1, [60, 40], &to).await;
    let Properties(flags, properties) = properties;
    let size = u64::try_from(body.len()).expect("it fits").to_be_bytes();
    let header = [&[0, 60, 0, 0][..], &size, &flags.to_be_bytes(), properties].concat();
    frame(&mut broker, HEADER, 1, &header).await;
    frame(&mut broker, BODY, 1, body).await;
    next(&mut broker, [60, 80]).await;
}

fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).expect("a short text")], text].concat()
}

fn long(text: &[u8]) -> Vec<u8> {
    [&u32::try_from(text.len()).expect("it fits").to_be_bytes()[..], text].concat()
}

async fn method(broker: &mut TcpStream, channel: u8, [class, method]: [u8; 2], arguments: &[u8]) {
    let payload = [&[0, class, 0, method][..], arguments].concat();
    frame(broker, METHOD, channel, &payload).await;
}

async fn frame(broker: &mut TcpStream, kind: u8, channel: u8, payload: &[u8]) {
    let size = u32::try_from(payload.len()).expect("it fits").to_be_bytes();
    let frame = [&[kind, 0, channel][..], &size, payload, &[0xce]].concat();
    broker.write_all(&frame).await.expect("it can be sent");
}

/// Reads the next frame and checks that it is that method.
async fn next(broker: &mut TcpStream, [class, method]: [u8; 2]) {
    let mut head = [0; 7];
    broker.read_exact(&mut head).await.expect("the broker answers");
    let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
    let mut payload = vec![0; usize::try_from(size).expect("it fits") + 1];
    broker.read_exact(&mut payload).await.expect("the broker answers");
    assert_eq!(payload[..4], [0, class, 0, method]);
}
