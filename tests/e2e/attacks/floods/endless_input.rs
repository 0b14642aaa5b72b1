//! Requests, messages and bodies that never end.

use std::time::Duration;

use belfry_tests::wait::PATIENCE;
use futures_util::future::join_all;
use tokio::time::timeout;

use super::super::polling_client::PollingClient;
use super::raw_flood::{
    ATTACKER, BINARY, CONTINUATION, FINAL, PING, Prelude, RawFlood, TEXT, frame, frame_header, text,
};
use super::scenario::AttackScenario;
use super::{PARALLEL, SECOND};

/// An attempt, with the fields of its [`RawFlood`].
struct EndlessInput {
    attempt: &'static str,
    prelude: Prelude,
    first: Vec<u8>,
    repeated: Vec<u8>,
    interval: Duration,
}

#[tokio::test]
async fn connection_with_endless_input_is_closed() {
    let scenario = AttackScenario::start().await;
    let attacker = scenario.target.attacker();
    let sign_in = || Prelude::SignIn(attacker.token());
    // A binary event (45) that announces 16 attachments.
    let announcement = text(r#"4516-["x",{"_placeholder":true,"num":0}]"#);
    let often = SECOND / 10;
    let rows = [
        // Before a request is complete.
        EndlessInput {
            attempt: "a request head, byte by byte",
            prelude: Prelude::Nothing,
            first: b"GET / HTTP/1.1\r\nx: ".into(),
            repeated: b"x".into(),
            interval: SECOND,
        },
        EndlessInput {
            attempt: "empty lines before a request head",
            prelude: Prelude::Nothing,
            first: vec![],
            repeated: b"\r\n".into(),
            interval: SECOND,
        },
        // On a WebSocket, before sign-in.
        EndlessInput {
            attempt: "silence",
            prelude: Prelude::WebSocket,
            first: vec![],
            repeated: vec![],
            interval: SECOND,
        },
        EndlessInput {
            attempt: "pongs",
            prelude: Prelude::WebSocket,
            first: vec![],
            repeated: text("3"),
            interval: often,
        },
        EndlessInput {
            attempt: "WebSocket pings",
            prelude: Prelude::WebSocket,
            first: vec![],
            repeated: frame(FINAL | PING, b""),
            interval: often,
        },
        EndlessInput {
            attempt: "unknown namespaces",
            prelude: Prelude::WebSocket,
            first: vec![],
            repeated: text("40/admin,"),
            interval: often,
        },
        EndlessInput {
            attempt: "a sign-in, byte by byte",
            prelude: Prelude::WebSocket,
            first: frame_header(FINAL | TEXT, 5_000),
            repeated: b"4".into(),
            interval: SECOND,
        },
        EndlessInput {
            attempt: "fragments of 1 kB",
            prelude: Prelude::WebSocket,
            first: frame(TEXT, b"42["),
            repeated: frame(CONTINUATION, &[b'x'; 1_000]),
            interval: SECOND / 1_000,
        },
        EndlessInput {
            attempt: "a frame of 2^62 bytes",
            prelude: Prelude::WebSocket,
            first: frame_header(FINAL | BINARY, 1 << 62),
            repeated: vec![0; 1_000],
            interval: often,
        },
        EndlessInput {
            attempt: "a frame of 1 MB",
            prelude: Prelude::WebSocket,
            first: frame_header(FINAL | BINARY, 1 << 20),
            repeated: vec![0; 1_000],
            interval: often,
        },
        EndlessInput {
            attempt: "attachments",
            prelude: Prelude::WebSocket,
            first: announcement.clone(),
            repeated: frame(FINAL | BINARY, b""),
            interval: SECOND,
        },
        // On a WebSocket, after sign-in.
        EndlessInput {
            attempt: "an event, byte by byte",
            prelude: sign_in(),
            first: frame_header(FINAL | TEXT, 5_000),
            repeated: b"4".into(),
            interval: SECOND,
        },
        EndlessInput {
            attempt: "empty fragments",
            prelude: sign_in(),
            first: frame(TEXT, b"42["),
            repeated: frame(CONTINUATION, b""),
            interval: often,
        },
        EndlessInput {
            attempt: "a frame of 2^62 bytes, after sign-in",
            prelude: sign_in(),
            first: frame_header(FINAL | BINARY, 1 << 62),
            repeated: vec![0; 1_000],
            interval: often,
        },
        EndlessInput {
            attempt: "more attachments than allowed",
            prelude: sign_in(),
            first: text(r#"45999-["x",{"_placeholder":true,"num":0}]"#),
            repeated: frame(FINAL | BINARY, b"x"),
            interval: often,
        },
        EndlessInput {
            attempt: "attachments larger than a message may be",
            prelude: sign_in(),
            first: announcement.clone(),
            repeated: frame(FINAL | BINARY, &vec![0; 50_000]),
            interval: SECOND,
        },
        EndlessInput {
            attempt: "attachments that are announced and never sent",
            prelude: sign_in(),
            first: announcement,
            repeated: vec![],
            interval: SECOND,
        },
    ];
    let floods = rows.map(|EndlessInput { attempt, prelude, first, repeated, interval }| {
        let answer = prelude.answer();
        let flood = RawFlood { prelude, first, repeated, interval };
        let to = scenario.address();
        async move {
            let all = join_all((0..PARALLEL).map(|_| flood.clone().run(ATTACKER, to)));
            let Ok(received) = timeout(PATIENCE, all).await else {
                return Some(format!("{attempt}: not closed"));
            };
            // Without a prelude the server closes the connection and sends no response.
            let is_expected = |received: &String| match answer {
                "" => received.is_empty(),
                _ => received.contains(answer),
            };
            let unexpected = received.into_iter().find(|received| !is_expected(received));
            unexpected.map(|received| format!("{attempt}: {received}"))
        }
    });
    let failures: Vec<_> =
        scenario.run_during(join_all(floods)).await.into_iter().flatten().collect();
    assert_eq!(failures, Vec::<String>::new());
    scenario.assert_nothing_left().await;
}

/// An attempt to send a polling request whose body never ends.
struct EndlessBody<'a> {
    attempt: &'static str,
    /// The last header, and the beginning of the body.
    first: &'static str,
    repeated: &'a str,
    interval: Duration,
    /// The beginning of the expected response.
    status: &'static str,
}

#[tokio::test]
async fn endless_polling_body_is_cut_off() {
    let scenario = AttackScenario::start().await;
    let attacker = scenario.target.attacker();
    let chunked = "transfer-encoding: chunked\r\n\r\n1\r\n4\r\n";
    let chunk = format!("8000\r\n{}\r\n", "x".repeat(0x8000));
    let rows = [
        EndlessBody {
            attempt: "byte by byte",
            first: "content-length: 99\r\n\r\n4",
            repeated: "x",
            interval: SECOND,
            status: "HTTP/1.1 408",
        },
        EndlessBody {
            attempt: "in small chunks",
            first: chunked,
            repeated: "1\r\nx\r\n",
            interval: SECOND / 10,
            status: "HTTP/1.1 408",
        },
        EndlessBody {
            attempt: "as fast as possible",
            first: chunked,
            repeated: &chunk,
            interval: Duration::ZERO,
            status: "HTTP/1.1 413",
        },
    ];
    let floods = rows.map(|EndlessBody { attempt, first, repeated, interval, status }| {
        let (scenario, attacker) = (&scenario, &attacker);
        join_all((0..PARALLEL).map(move |_| async move {
            let (_, sid) = PollingClient::signed_in(scenario.url(), &attacker.token()).await;
            let path = format!("/socket.io/?EIO=4&transport=polling&sid={sid}");
            let flood = RawFlood {
                prelude: Prelude::Nothing,
                first: format!("POST {path} HTTP/1.1\r\nhost: x\r\n{first}").into(),
                repeated: repeated.into(),
                interval,
            };
            let received = timeout(PATIENCE, flood.run(ATTACKER, scenario.address())).await;
            let received = received.unwrap_or_else(|_| panic!("{attempt}: not closed"));
            assert!(received.contains(status), "{attempt}: {received}");
        }))
    });
    scenario.run_during(join_all(floods)).await;
    scenario.assert_nothing_left().await;
}
