//! Which words the inner crates may not say, not even in a comment: a port that explains itself with a
//! product is shaped after that product.

use std::path::PathBuf;

use crate::{none, sources};

/// Products, libraries and protocols. Compared without regard to case, with whole words and with the
/// parts of a name such as `PostgresInbox` or `amqp_url`.
///
/// `https` is not among them, for links in documentation; neither is `json`, the notation of a
/// notification's own data, which the inner crates carry as text.
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

/// Names with a dot in them.
const DOTTED: [&str; 2] = ["socket.io", "engine.io"];

/// Files that may say one of the words, and why.
const EXCEPTIONS: [(&str, &str, &str); 0] = [];

fn breaches(files: &[(PathBuf, String)], exceptions: &[(&str, &str, &str)]) -> Vec<String> {
    let mut breaches = Vec::new();
    for (path, text) in files {
        let excepted = |word: &str| {
            let file = path.to_str().unwrap_or_default();
            exceptions.iter().any(|(where_, what, _)| *where_ == file && *what == word)
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

/// The words of a line in lower case, and beside each the parts that capitals divide it into.
fn words_of(line: &str) -> impl Iterator<Item = String> {
    line.split(|c: char| !c.is_alphanumeric())
        .flat_map(|word| std::iter::once(word).chain(parts_of(word)))
        .map(str::to_lowercase)
}

/// `PostgresInbox` is `Postgres` and `Inbox`.
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
fn the_domain_names_no_technology() {
    none(&breaches(&sources("domain/src"), &EXCEPTIONS));
}

#[test]
fn the_application_names_no_technology() {
    none(&breaches(&sources("application/src"), &EXCEPTIONS));
}

fn said(text: &str) -> Vec<String> {
    breaches(&[(PathBuf::from("a.rs"), text.to_owned())], &EXCEPTIONS)
}

#[test]
fn an_import_a_comment_and_a_name_are_found() {
    assert_eq!(said("use sqlx::PgPool;"), ["a.rs:1: names sqlx"]);
    assert_eq!(said("\n// RabbitMQ redelivers it"), ["a.rs:2: names rabbitmq"]);
    assert_eq!(said("struct PostgresInbox;"), ["a.rs:1: names postgres"]);
    assert_eq!(said("let amqp_url = 1;"), ["a.rs:1: names amqp"]);
    assert_eq!(said("/// A PostgreSQL table"), ["a.rs:1: names postgresql", "a.rs:1: names sql"]);
    assert_eq!(said("/// as Socket.IO does"), ["a.rs:1: names socket.io"]);
    assert_eq!(said("use serde_json::Value;"), ["a.rs:1: names serde"]);
}

#[test]
fn words_that_only_look_alike_are_free() {
    let innocent = "/// See https://example.org. A sequel; httpd; towering; restful; sockets.";
    none(&said(innocent));
}

#[test]
fn an_exception_holds_for_its_file_and_word_only() {
    let files = [
        (PathBuf::from("a.rs"), "amqp sql".to_owned()),
        (PathBuf::from("b.rs"), "amqp".to_owned()),
    ];
    let found = breaches(&files, &[("a.rs", "amqp", "for this test")]);
    assert_eq!(found, ["a.rs:1: names sql", "b.rs:1: names amqp"]);
}
