//! HTTP requests that two parsers could read differently (request smuggling).

use belfry_tests::raw_http::{exchange, statuses};

use super::Target;
use crate::setup::Setup;

/// Each row has the bytes of an attempt and the status codes of all responses to it. One response means that
/// the server has not read a second request from the bytes.
#[tokio::test]
async fn ambiguous_request_hides_no_second_request() {
    let target = Target::shared(Setup::Embedded).await;
    let attacker = target.attacker();
    let (own, stolen) = (attacker.token(), target.victim.token());
    let list = "GET /v1/notifications HTTP/1.1\r\nhost: x\r\n";
    let hidden = format!("{list}authorization: Bearer {stolen}\r\n\r\n");
    let post = format!(
        "POST /v1/notifications/read-all HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {own}\r\n"
    );
    let chunked = "transfer-encoding: chunked\r\n";
    let length = |length: usize| format!("content-length: {length}\r\n");
    let smuggled = format!("0\r\n\r\n{hidden}");
    let total = smuggled.len();
    let mut failures = Vec::new();
    for (attempt, request, expected) in [
        (
            "two tokens, the attacker's first",
            format!("{list}authorization: Bearer {own}\r\nauthorization: Bearer {stolen}\r\n\r\n"),
            &[401][..],
        ),
        (
            "two tokens, the attacker's last",
            format!("{list}authorization: Bearer {stolen}\r\nauthorization: Bearer {own}\r\n\r\n"),
            &[401],
        ),
        (
            "a header folded over two lines",
            format!("{list}authorization: Bearer\r\n {own}\r\n\r\n"),
            &[400],
        ),
        ("a space before the colon", format!("{list}authorization : Bearer {own}\r\n\r\n"), &[400]),
        (
            "a lone line feed in a value",
            format!("{list}x: a\nauthorization: Bearer {own}\r\n\r\n"),
            &[200],
        ),
        (
            "a lone carriage return in a value",
            format!("{list}x: a\rb\r\nauthorization: Bearer {own}\r\n\r\n"),
            &[400],
        ),
        (
            "a zero byte in a value",
            format!("{list}x: a\0b\r\nauthorization: Bearer {own}\r\n\r\n"),
            &[400],
        ),
        ("two lengths", format!("{post}{}{}\r\nabc{hidden}", length(3), length(4)), &[400]),
        (
            "two lengths in one header",
            format!("{post}content-length: 3, 4\r\n\r\nabc{hidden}"),
            &[400],
        ),
        ("a length with a sign", format!("{post}content-length: +3\r\n\r\nabc{hidden}"), &[400]),
        ("a negative length", format!("{post}content-length: -1\r\n\r\n{hidden}"), &[400]),
        (
            "a length out of range",
            format!("{post}content-length: 99999999999999999999\r\n\r\n"),
            &[400],
        ),
        ("chunks and a length", format!("{post}{}{chunked}\r\n{smuggled}", length(total)), &[200]),
        (
            "chunks and a length, in the other order",
            format!("{post}{chunked}{}\r\n{smuggled}", length(total)),
            &[200],
        ),
        (
            "an unknown transfer coding",
            format!("{post}transfer-encoding: xchunked\r\n\r\n{smuggled}"),
            &[400],
        ),
        (
            "chunked that is not the last coding",
            format!("{post}transfer-encoding: chunked, identity\r\n\r\n{smuggled}"),
            &[400],
        ),
        ("a negative chunk size", format!("{post}{chunked}\r\n-1\r\n\r\n{hidden}"), &[200]),
        (
            "a chunk size that is not a number",
            format!("{post}{chunked}\r\nzz\r\n\r\n{hidden}"),
            &[200],
        ),
        (
            "a chunk size out of range",
            format!("{post}{chunked}\r\nfffffffffffffffff\r\n\r\n{hidden}"),
            &[200],
        ),
        (
            "chunks in HTTP/1.0",
            format!("{}{chunked}\r\n{smuggled}", post.replace("1.1", "1.0")),
            &[400],
        ),
        ("no version", "GET /v1/notifications\r\n\r\n".to_owned(), &[400]),
        ("not HTTP", "\u{16}\u{3}\u{1}hello\r\n\r\n".to_owned(), &[400]),
        ("a header of 1 MB", format!("{list}x: {}\r\n\r\n", "x".repeat(1_000_000)), &[431]),
        ("10,000 headers", format!("{list}{}\r\n", "x: y\r\n".repeat(10_000)), &[431]),
        (
            "a path of 100 kB",
            format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(100_000)),
            &[431],
        ),
        (
            "a path with dot segments",
            format!(
                "GET /v1/../v1/notifications HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {own}\r\n\r\n"
            ),
            &[404],
        ),
        (
            "a path with encoded dot segments",
            format!(
                "GET /v1/notifications/%2e%2e%2fhealth HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {own}\r\n\r\n"
            ),
            &[404],
        ),
        (
            "two slashes",
            format!(
                "GET //v1/notifications HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {own}\r\n\r\n"
            ),
            &[404],
        ),
        (
            "a path that is not UTF-8",
            format!(
                "GET /v1/notifications/%ff HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {own}\r\n\r\n"
            ),
            &[400],
        ),
        (
            "an unknown method",
            format!(
                "SMUGGLE /v1/notifications HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {own}\r\n\r\n"
            ),
            &[405],
        ),
        (
            "a method override",
            format!("{list}x-http-method-override: DELETE\r\nauthorization: Bearer {own}\r\n\r\n"),
            &[200],
        ),
    ] {
        let answer = exchange(target.url(), &request).await;
        if statuses(&answer) != expected {
            failures.push(format!("{attempt}: {answer:.400}"));
        }
        assert!(!answer.contains(&target.secret), "{attempt}: {answer}");
    }
    assert_eq!(failures, Vec::<String>::new());
    target.assert_unharmed().await;
}
