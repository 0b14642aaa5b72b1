//! Texts that are special in SQL, a terminal, a log or an HTML page: they are stored unchanged and are
//! never interpreted.

use std::fmt::Write as _;

use belfry_tests::amqp::Amqp;
use belfry_tests::http::send;
use belfry_tests::process::Belfry;
use belfry_tests::wait::until_true;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use reqwest::Method;
use serde_json::{Value, json};

use super::Target;
use crate::setup::Setup;

on_both_setups!(hostile_texts_are_stored_unchanged_and_not_interpreted);

/// Two of the texts try to forge a log line with the message `forged: mark`. [`assert_whole_lines`] checks the
/// log for that.
const HOSTILE: [&str; 12] = [
    "'; DROP TABLE notifications; --",
    "' OR '1'='1",
    "\" OR \"\"=\"",
    "\\'; SELECT pg_sleep(60); --",
    "$1 $$ :a ?1 %s %n {} {0}",
    "${jndi:ldap://127.0.0.1:1/a}",
    "<script>alert(1)</script>",
    "{{7*7}} #{7*7} `id` $(id)",
    "a\n2026-01-01T00:00:00.000000Z ERROR forged: mark",
    "a\r\n{\"level\":\"ERROR\",\"message\":\"forged: mark\"}",
    "tab\tand \u{2028} and \u{2029}.",
    "\u{202e}drawkcab \u{1f469}\u{200d}\u{1f4bb} e\u{301}",
];

/// The text as one word of visible ASCII, for fields that allow nothing else.
fn word(text: &str) -> String {
    text.chars().filter(char::is_ascii_graphic).take(90).collect()
}

async fn hostile_texts_are_stored_unchanged_and_not_interpreted(setup: Setup) {
    for format in ["json", "text"] {
        let configure = |builder: belfry_tests::process::Builder| {
            builder.setting("log.format", format).setting("log.level", "trace")
        };
        let target = Target::on(std::sync::Arc::new(setup.own_with(configure).await)).await;
        let receiver = target.deployment.user("receiver");
        for (number, text) in HOSTILE.into_iter().enumerate() {
            assert_stored_unchanged(&target, receiver.id(), number, text).await;
        }
        let page = receiver.http().get("/v1/notifications?limit=100").await.expect(200);
        assert_eq!(page["items"].as_array().unwrap().len(), HOSTILE.len(), "no more and no fewer");
        for text in HOSTILE.map(word) {
            let mut path = "/v1/notifications?type=".to_owned();
            for byte in text.bytes() {
                let _ = write!(path, "%{byte:02x}");
            }
            let answer = receiver.http().get(&path).await.expect(200);
            assert_eq!(answer["items"].as_array().unwrap().len(), 1, "{text}");
        }
        if setup == Setup::Servers {
            publish_hostile_messages(&target).await;
        }
        assert_whole_lines(&target.deployment.belfry, format);
        target.assert_unharmed().await;
    }
}

async fn assert_stored_unchanged(target: &Target, user: &str, number: usize, text: &str) {
    let word = word(text);
    let draft = json!({
        "userId": user, "id": format!("{number}|{word}"), "dedupeKey": format!("{number}/{word}"),
        "type": word, "title": text, "message": text, "link": format!("/{word}"),
        "data": { text: [text, { "deeper": text }] },
    });
    let request =
        target.deployment.service().request(Method::POST, "/v1/notifications").json(&draft);
    let request = request
        .header("x-request-id", word.as_bytes())
        .header("traceparent", text.replace(['\r', '\n'], "\t").as_bytes())
        .header("tracestate", word.as_bytes())
        .header("user-agent", word.as_bytes())
        .header("referer", word.as_bytes())
        .header("x-forwarded-for", word.as_bytes())
        .header("idempotency-key", format!("{number}{word}"));
    let created = send(request).await.expect(201);
    for field in ["id", "type", "title", "message", "link", "data"] {
        assert_eq!(created[field], draft[field], "{field}");
    }
    let stored = target.victim.called(user).http().get("/v1/notifications?limit=1").await;
    let stored = &stored.expect(200)["items"][0];
    for field in ["id", "type", "title", "message", "link", "data"] {
        assert_eq!(stored[field], draft[field], "{field}");
    }
}

/// Puts the texts into every field of a message that a producer controls.
async fn publish_hostile_messages(target: &Target) {
    let broker = target.deployment.broker();
    let amqp = Amqp::connect(broker.url()).await;
    for text in HOSTILE {
        let mut headers = FieldTable::default();
        for name in ["traceparent", "x-request-id", "cloudEvents:source"] {
            headers.insert(name.into(), AMQPValue::LongString(text.into()));
        }
        let properties = BasicProperties::default()
            .with_headers(headers)
            .with_type(text.into())
            .with_message_id(text.into())
            .with_app_id(text.into())
            .with_correlation_id(text.into())
            .with_reply_to(text.into());
        for body in [
            json!({ "pattern": text, "data": {} }).to_string(),
            json!({ "pattern": "notification.create", "data": { "userId": text, "title": text, "link": format!("javascript:{text}") } })
                .to_string(),
            json!({ "pattern": "notification.create", "data": { "userId": { text: text } } })
                .to_string(),
            text.to_owned(),
        ] {
            amqp.publish("", &broker.ingest_queue(), body, properties.clone()).await;
        }
        amqp.publish(&broker.ingest_queue(), text, "{}", properties.clone()).await;
    }
    // Each text is in five messages.
    let dead = u32::try_from(HOSTILE.len() * 5).unwrap();
    until_true("all are dead letters", async || {
        amqp.count(&broker.dead_queue()).await == Some(dead)
    })
    .await;
}

/// Checks that Belfry has written each log line itself: no hostile text has forged one.
fn assert_whole_lines(belfry: &Belfry, format: &str) {
    let log = belfry.log();
    let is_log = |line: &&str| !line.contains("listening on ") && !line.contains("admin on ");
    let lines: Vec<_> = log.lines().filter(is_log).collect();
    assert!(lines.len() > 50, "the log level is trace: {log}");
    for line in lines {
        if format == "json" {
            let line: Value =
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
            assert_ne!(line["message"], "forged: mark");
        } else {
            // The length of `2026-01-01T00:00:00.000000Z`.
            let timestamp = line.get(..27).unwrap_or_default();
            let is_timestamp = timestamp.ends_with('Z') && timestamp.contains('T');
            assert!(is_timestamp, "not a whole line: {line:?}");
            // A line may quote the hostile text. A line that begins with its timestamp would be forged.
            assert!(!line.starts_with("2026-01-01T"), "{line:?}");
        }
        assert!(!line.contains(['\u{1b}', '\u{202e}']), "{line:?}");
    }
}
