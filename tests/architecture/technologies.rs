//! The inner crates, `domain` and `application`, must not name a technology, not even in a comment. A port that is
//! explained with a product tends to copy that product.

use std::path::PathBuf;

use crate::{assert_none, sources};

/// Products, libraries and protocols. Each is compared, ignoring case, with whole words and with the parts of names
/// such as `PostgresInbox` or `amqp_url`.
///
/// `https` is not in the list because documentation contains links. `json` is not, because it is the notation of a
/// notification's data, which the inner crates pass on as text.
const TECHNOLOGIES: [&str; 35] = [
    "amqp",
    "amqps",
    "axum",
    "clap",
    "cloudevent",
    "cloudevents",
    "docker",
    "engineio",
    "engineioxide",
    "figment",
    "http",
    "hyper",
    "jsonwebtoken",
    "jwks",
    "jwt",
    "kafka",
    "kubernetes",
    "lapin",
    "nestjs",
    "postgres",
    "postgresql",
    "prometheus",
    "rabbitmq",
    "redis",
    "reqwest",
    "serde",
    "socketio",
    "socketioxide",
    "sql",
    "sqlite",
    "sqlx",
    "tower",
    "tungstenite",
    "utoipa",
    "websocket",
];

/// Names that contain a dot.
const DOTTED: [&str; 2] = ["socket.io", "engine.io"];

/// Files that may use one of the words, with the reason.
const EXCEPTIONS: [(&str, &str, &str); 1] =
    [("domain/src/notification/link_schemes.rs", "http", "the scheme of a link")];

fn breaches(files: &[(PathBuf, String)], exceptions: &[(&str, &str, &str)]) -> Vec<String> {
    let mut breaches = Vec::new();
    for (path, text) in files {
        let excepted = |word: &str| {
            let file = path.to_str().unwrap_or_default();
            exceptions.iter().any(|(allowed_in, name, _)| *allowed_in == file && *name == word)
        };
        for (number, line) in text.lines().enumerate() {
            for word in technologies_in(line).into_iter().filter(|word| !excepted(word)) {
                breaches.push(format!("{}:{}: names {word}", path.display(), number + 1));
            }
        }
    }
    breaches
}

fn technologies_in(line: &str) -> Vec<&'static str> {
    let words: Vec<String> = words_of(line).collect();
    let plain = TECHNOLOGIES.into_iter().filter(|name| words.iter().any(|word| word == name));
    let lower = line.to_lowercase();
    plain.chain(DOTTED.into_iter().filter(|name| lower.contains(name))).collect()
}

/// The words of a line and the parts of each word, all in lower case.
fn words_of(line: &str) -> impl Iterator<Item = String> {
    line.split(|c: char| !c.is_alphanumeric())
        .flat_map(|word| std::iter::once(word).chain(parts_of(word)))
        .map(str::to_lowercase)
}

/// Splits a word before its capitals: `PostgresInbox` into `Postgres` and `Inbox`.
fn parts_of(word: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut start = 0;
    let mut before = None;
    for (at, c) in word.char_indices() {
        if c.is_uppercase() && before.is_some_and(|it: char| !it.is_uppercase()) {
            parts.push(&word[start..at]);
            start = at;
        }
        before = Some(c);
    }
    parts.push(&word[start..]);
    parts
}

#[test]
fn domain_names_no_technology() {
    assert_none(&breaches(&sources("domain/src"), &EXCEPTIONS));
}

#[test]
fn application_names_no_technology() {
    assert_none(&breaches(&sources("application/src"), &EXCEPTIONS));
}

fn found_in(text: &str) -> Vec<String> {
    breaches(&[(PathBuf::from("a.rs"), text.to_owned())], &EXCEPTIONS)
}

#[test]
fn technologies_in_imports_comments_and_names_are_found() {
    assert_eq!(found_in("use sqlx::PgPool;"), ["a.rs:1: names sqlx"]);
    assert_eq!(found_in("\n// RabbitMQ redelivers it"), ["a.rs:2: names rabbitmq"]);
    assert_eq!(found_in("struct PostgresInbox;"), ["a.rs:1: names postgres"]);
    assert_eq!(found_in("let amqp_url = 1;"), ["a.rs:1: names amqp"]);
    assert_eq!(
        found_in("/// A PostgreSQL table"),
        ["a.rs:1: names postgresql", "a.rs:1: names sql"]
    );
    assert_eq!(found_in("/// as Socket.IO does"), ["a.rs:1: names socket.io"]);
    assert_eq!(found_in("use serde_json::Value;"), ["a.rs:1: names serde"]);
}

#[test]
fn similar_words_are_allowed() {
    let innocent = "/// See https://example.org. A sequel; httpd; towering; restful; sockets.";
    assert_none(&found_in(innocent));
}

#[test]
fn exception_applies_to_its_file_and_word_only() {
    let files = [
        (PathBuf::from("a.rs"), "amqp sql".to_owned()),
        (PathBuf::from("b.rs"), "amqp".to_owned()),
    ];
    let found = breaches(&files, &[("a.rs", "amqp", "for this test")]);
    assert_eq!(found, ["a.rs:1: names sql", "b.rs:1: names amqp"]);
}
