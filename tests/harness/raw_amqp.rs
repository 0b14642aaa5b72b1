//! AMQP 0-9-1, byte for byte: messages that no client library would publish.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

// Types of frames.
const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;

/// The last byte of each frame.
const FRAME_END: u8 = 0xce;

/// The ids of a method's class and of the method in it.
type Method = [u8; 2];

const CONNECTION_START: Method = [10, 10];
const CONNECTION_START_OK: Method = [10, 11];
const CONNECTION_TUNE: Method = [10, 30];
const CONNECTION_TUNE_OK: Method = [10, 31];
const CONNECTION_OPEN: Method = [10, 40];
const CONNECTION_OPEN_OK: Method = [10, 41];
const CHANNEL_OPEN: Method = [20, 10];
const CHANNEL_OPEN_OK: Method = [20, 11];
const BASIC_PUBLISH: Method = [60, 40];
const BASIC_ACK: Method = [60, 80];
const CONFIRM_SELECT: Method = [85, 10];
const CONFIRM_SELECT_OK: Method = [85, 11];

// Flags that say which properties a message has.
const HAS_HEADERS: u16 = 1 << 13;
const HAS_CORRELATION_ID: u16 = 1 << 10;

/// The property flags of a message, and its encoded properties.
#[derive(Debug)]
pub struct Properties(u16, Vec<u8>);

/// A `correlation_id` of any bytes.
///
/// # Panics
/// When there are more than 255 bytes.
pub fn correlation_id(bytes: &[u8]) -> Properties {
    Properties(HAS_CORRELATION_ID, short(bytes))
}

/// Headers `{"a":{"a":{…}}}`, nested to this depth.
///
/// # Panics
/// When the length of the headers does not fit in four bytes.
pub fn nested_headers(depth: usize) -> Properties {
    /// The bytes of one level: the length of the name, the name, the type, and the length of the table in it.
    const LEVEL: usize = 1 + 1 + 1 + 4;

    // Built from the outside in: to copy the inner tables at each level would take quadratic time.
    let length = |levels: usize| u32::try_from(levels * LEVEL).expect("it fits").to_be_bytes();
    let mut table = length(depth).to_vec();
    for levels_inside in (0..depth).rev() {
        table.extend([1, b'a', b'F']);
        table.extend(length(levels_inside));
    }
    Properties(HAS_HEADERS, table)
}

/// Publishes a message directly to a queue, as the user in the URL, and waits for the confirm.
///
/// # Panics
/// When the broker does not confirm it.
pub async fn publish(url: &str, queue: &str, properties: &Properties, body: &[u8]) {
    let login_and_path = url.strip_prefix("amqp://").expect("a URL without TLS");
    let (login, address_and_path) = login_and_path.split_once('@').expect("it names a user");
    let (address, _) = address_and_path.split_once('/').expect("it names a virtual host");
    let mut broker = TcpStream::connect(address).await.expect("the broker listens");
    open_channel(&mut broker, login).await;

    // A reserved field, the default exchange, the routing key, and flags of which none is set.
    let to = [&[0, 0][..], &short(b""), &short(queue.as_bytes()), &[0]].concat();
    send_method(&mut broker, 1, BASIC_PUBLISH, &to).await;
    let Properties(flags, properties) = properties;
    let [class, _] = BASIC_PUBLISH;
    let size = u64::try_from(body.len()).expect("it fits").to_be_bytes();
    let header = [&[0, class, 0, 0][..], &size, &flags.to_be_bytes(), properties].concat();
    send_frame(&mut broker, HEADER, 1, &header).await;
    send_frame(&mut broker, BODY, 1, body).await;
    expect_method(&mut broker, BASIC_ACK).await;
}

/// Signs in with `user:password`, and opens the channel 1 in confirm mode.
async fn open_channel(broker: &mut TcpStream, login: &str) {
    // The protocol header: AMQP 0-9-1.
    broker.write_all(b"AMQP\0\0\x09\x01").await.expect("it can be sent");
    expect_method(broker, CONNECTION_START).await;
    let response = format!("\0{}", login.replacen(':', "\0", 1));
    let start_ok = [&long(b"")[..], &short(b"PLAIN"), &long(response.as_bytes()), &short(b"en_US")];
    send_method(broker, 0, CONNECTION_START_OK, &start_ok.concat()).await;
    expect_method(broker, CONNECTION_TUNE).await;
    // At most 10 channels, frames of at most 2^17 bytes, no heartbeats.
    send_method(broker, 0, CONNECTION_TUNE_OK, &[0, 10, 0, 2, 0, 0, 0, 0]).await;
    let open = [&short(b"/")[..], &short(b""), &[0]].concat();
    send_method(broker, 0, CONNECTION_OPEN, &open).await;
    expect_method(broker, CONNECTION_OPEN_OK).await;
    send_method(broker, 1, CHANNEL_OPEN, &short(b"")).await;
    expect_method(broker, CHANNEL_OPEN_OK).await;
    send_method(broker, 1, CONFIRM_SELECT, &[0]).await;
    expect_method(broker, CONFIRM_SELECT_OK).await;
}

/// A text with its length in one byte.
fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).expect("a short text")], text].concat()
}

/// A text with its length in four bytes.
fn long(text: &[u8]) -> Vec<u8> {
    [&u32::try_from(text.len()).expect("it fits").to_be_bytes()[..], text].concat()
}

async fn send_method(
    broker: &mut TcpStream,
    channel: u8,
    [class, method]: Method,
    arguments: &[u8],
) {
    let payload = [&[0, class, 0, method][..], arguments].concat();
    send_frame(broker, METHOD, channel, &payload).await;
}

async fn send_frame(broker: &mut TcpStream, frame_type: u8, channel: u8, payload: &[u8]) {
    let size = u32::try_from(payload.len()).expect("it fits").to_be_bytes();
    let frame = [&[frame_type, 0, channel][..], &size, payload, &[FRAME_END]].concat();
    broker.write_all(&frame).await.expect("it can be sent");
}

/// Reads the next frame and checks that it carries this method.
async fn expect_method(broker: &mut TcpStream, [class, method]: Method) {
    let mut head = [0; 7];
    broker.read_exact(&mut head).await.expect("the broker answers");
    let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
    // The payload and the end of the frame.
    let mut payload = vec![0; usize::try_from(size).expect("it fits") + 1];
    broker.read_exact(&mut payload).await.expect("the broker answers");
    assert_eq!(payload[..4], [0, class, 0, method]);
}
