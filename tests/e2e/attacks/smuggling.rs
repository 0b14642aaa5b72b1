//! Requests in which two readers could see two different things.

use belfry_tests::raw_http::{exchange, statuses};

use super::Scene;
use crate::setup::Setup;

/// One row for each: what is sent behind the request line, and every status that comes back.
#[tokio::test]
async fn a_request_is_read_in_one_way_or_not_at_all() {
    let scene = Scene::shared(Setup::Embedded).await;
    let attacker = scene.attacker();
    let (own, stolen) = (attacker.token(), scene.victim.token());
    let list = "GET /v1/notifications HTTP/1.1\r\nhost: x\r\n";
    let hidden = format!("{list}authorization: Bearer {stolen}\r\n\r\n");
    let post = format!(
        "POST /v1/notifications/read-all HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {own}\r\n"
    );
    let chunked = "transfer-encoding: chunked\r\n";
    let length = |length: usize| format!("content-length: {length}\r\n");
    let behind = format!("0\r\n\r\n{hidden}");
    let whole = behind.len();
    let mut surprises = Vec::new();
    for (attack, request, expected) in [
        (
            "two tokens, ours first",
            format!("{list}authorization: Bearer {own}\r\nauthorization: Bearer {stolen}\r\n\r\n"),
            &[401][..],
        ),
        (
            "two tokens, ours last",
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
            "a length beyond all lengths",
            format!("{post}content-length: 99999999999999999999\r\n\r\n"),
            &[400],
        ),
        ("chunks and a length", format!("{post}{}{chunked}\r\n{behind}", length(whole)), &[200]),
        (
            "chunks and a length, the other way round",
            format!("{post}{chunked}{}\r\n{behind}", length(whole)),
            &[200],
        ),
        (
            "chunks under a false name",
            format!("{post}transfer-encoding: xchunked\r\n\r\n{behind}"),
            &[400],
        ),
        (
            "chunks not last",
            format!("{post}transfer-encoding: chunked, identity\r\n\r\n{behind}"),
            &[400],
        ),
        ("a chunk of a negative size", format!("{post}{chunked}\r\n-1\r\n\r\n{hidden}"), &[200]),
        ("a chunk of no number", format!("{post}{chunked}\r\nzz\r\n\r\n{hidden}"), &[200]),
        (
            "a chunk of a size beyond all sizes",
            format!("{post}{chunked}\r\nfffffffffffffffff\r\n\r\n{hidden}"),
            &[200],
        ),
        (
            "chunks in an old version",
            format!("{}{chunked}\r\n{behind}", post.replace("1.1", "1.0")),
            &[400],
        ),
        ("no version", "GET /v1/notifications\r\n\r\n".to_owned(), &[400]),
        ("no HTTP at all", "\u{16}\u{3}\u{1}hello\r\n\r\n".to_owned(), &[400]),
        ("a header of 1 MB", format!("{list}x: {}\r\n\r\n", "x".repeat(1_000_000)), &[431]),
        ("10,000 headers", format!("{list}{}\r\n", "x: y\r\n".repeat(10_000)), &[431]),
        (
            "a path of 100 kB",
            format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(100_000)),
            &[431],
        ),
        (
            "a path out of its place",
            format!(
                "GET /v1/../v1/notifications HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {own}\r\n\r\n"
            ),
            &[404],
        ),
        (
            "a path out of its place, encoded",
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
            "a method of its own",
            format!(
                "SMUGGLE /v1/notifications HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {own}\r\n\r\n"
            ),
            &[405],
        ),
        (
            "a method in other words",
            format!("{list}x-http-method-override: DELETE\r\nauthorization: Bearer {own}\r\n\r\n"),
            &[200],
        ),
    ] {
        let answer = exchange(scene.url(), &request).await;
        if statuses(&answer) != expected {
            surprises.push(format!("{attack}: {answer:.400}"));
        }
        assert!(!answer.contains(&scene.secret), "{attack}: {answer}");
    }
    assert_eq!(surprises, Vec::<String>::new());
    scene.stands_unharmed().await;
}
