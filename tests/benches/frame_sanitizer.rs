//! Sanitizing the method and the properties of a message, which happens to every message before lapin parses
//! it. This must be cheap and allocate nothing, and a malicious message must not make it slow.

use std::iter;

use belfry_adapters::bench_support::sanitize_frame;

use crate::microbenchmarks::Microbenchmarks;

/// The AMQP frame types of a method and of a content header.
const METHOD: u8 = 1;
const HEADER: u8 = 2;

pub(crate) fn measure(benches: &mut Microbenchmarks) {
    let (mut method, mut header) = (deliver_method(), content_header(&traceparent_entry()));
    benches.bench("frame sanitizer/one message", || {
        sanitize_frame(METHOD, &mut method);
        sanitize_frame(HEADER, &mut header);
    });
    // RabbitMQ's default maximal frame size.
    let mut largest = content_header(&smallest_entries(128 * 1024));
    benches.bench("frame sanitizer/128 KiB of headers", || sanitize_frame(HEADER, &mut largest));
}

fn short_string(text: &str) -> Vec<u8> {
    [&[u8::try_from(text.len()).expect("it is short")], text.as_bytes()].concat()
}

/// A long string or a table: both have a length of 4 bytes.
fn long_string(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("it fits in a frame");
    [&length.to_be_bytes(), bytes].concat()
}

fn deliver_method() -> Vec<u8> {
    let basic_deliver = [0, 60, 0, 60];
    let consumer = short_string("ctag1");
    let delivery_tag = [0, 0, 0, 0, 0, 0, 0, 7];
    let redelivered = [0];
    let (exchange, routing_key) =
        (short_string("belfry.ingest"), short_string("notification.created"));
    [&basic_deliver[..], &consumer, &delivery_tag, &redelivered, &exchange, &routing_key].concat()
}

/// The properties of a message: content type, headers, delivery mode and message id.
fn content_header(headers: &[u8]) -> Vec<u8> {
    // Class, weight, and a body size of 400 bytes.
    let start = [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x90];
    // One bit for each property that is present.
    let flags = [0xb0, 0x80];
    let content_type = short_string("application/json");
    let persistent = [2];
    let id = short_string("0198c1f2-0000-7000-8000-00000000000c");
    [&start[..], &flags, &content_type, &long_string(headers), &persistent, &id].concat()
}

fn traceparent_entry() -> Vec<u8> {
    let value = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    [&short_string("traceparent"), &b"S"[..], &long_string(value)].concat()
}

/// Table entries of the smallest size, a name of one letter without a value, that fill about `bytes`. They need the
/// most parsing steps per byte.
fn smallest_entries(bytes: usize) -> Vec<u8> {
    let entry = [&short_string("a")[..], b"V"].concat();
    let count = bytes / entry.len();
    iter::repeat_n(entry, count).flatten().collect()
}
