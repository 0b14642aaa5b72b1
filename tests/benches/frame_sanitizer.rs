//! The method and the properties of every message are sanitized before lapin parses them. That must be
//! cheap, allocate nothing, and not take long even for a malicious message.

use std::iter;

use belfry_adapters::bench_support::sanitize_frame;

use crate::microbenchmarks::Microbenchmarks;

const METHOD: u8 = 1;
const HEADER: u8 = 2;

pub(crate) fn measure(benches: &mut Microbenchmarks) {
    let (mut method, mut header) = (delivery(), header(&traced()));
    benches.bench("frame sanitizer/one message", || {
        sanitize_frame(METHOD, &mut method);
        sanitize_frame(HEADER, &mut header);
    });
    // RabbitMQ's frame size.
    let mut largest = self::header(&entries(128 * 1024));
    benches.bench("frame sanitizer/128 KiB of headers", || sanitize_frame(HEADER, &mut largest));
}

fn short(text: &str) -> Vec<u8> {
    [&[u8::try_from(text.len()).expect("it is short")], text.as_bytes()].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("it fits in a frame");
    [&length.to_be_bytes(), bytes].concat()
}

/// `basic.deliver`.
fn delivery() -> Vec<u8> {
    let method = [0, 60, 0, 60];
    let tag = [0, 0, 0, 0, 0, 0, 0, 7, 0];
    [&method[..], &short("ctag1"), &tag, &short("belfry.ingest"), &short("notification.created")]
        .concat()
}

/// The properties of a message: content type, headers, delivery mode and message id.
fn header(table: &[u8]) -> Vec<u8> {
    let head = [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x90];
    let flags = [0xb0, 0x80];
    let id = short("0198c1f2-0000-7000-8000-00000000000c");
    [&head[..], &flags, &short("application/json"), &long(table), &[2], &id].concat()
}

fn entry(name: &str, value: &[u8]) -> Vec<u8> {
    [&short(name), &b"S"[..], &long(value)].concat()
}

fn traced() -> Vec<u8> {
    entry("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
}

/// As many of the smallest entries as fit: the most parsing steps per byte.
fn entries(bytes: usize) -> Vec<u8> {
    let entry = [&short("a")[..], b"V"].concat();
    let count = bytes / entry.len();
    iter::repeat_n(entry, count).flatten().collect()
}
