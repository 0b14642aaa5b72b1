//! Command line and settings: an invalid setting stops the start with a message, and the other commands work.

use belfry_tests::clients::Device;
use belfry_tests::http::Http;
use belfry_tests::postgres::{Database, fresh_database};
use belfry_tests::process::{Belfry, Builder, Finished};
use belfry_tests::tokens::Key;
use serde_json::Value;

use crate::setup::{SECRET, Setup, ready, signed_in};

/// Checks that it does not start but exits with code 1 and a one-line message with all these words.
async fn stops_the_start(builder: Builder, words: &[&str]) {
    let Finished { status, out, err } = builder.finish().await;
    assert_eq!(status.code(), Some(1), "{words:?}: {err}");
    assert_eq!(out, "", "{words:?}: {err}");
    let sentence = err.strip_prefix("belfry: ").unwrap_or_else(|| panic!("{words:?}: {err}"));
    assert!(!sentence.contains('\n'), "one sentence, not {err:?}");
    for word in words {
        assert!(sentence.contains(word), "no {word:?} in {sentence:?}");
    }
}

/// A `belfry` with this setting, on free ports unless the setting is a port.
fn with(path: &str, value: &str) -> Builder {
    let builder = Belfry::builder().setting("http.listen", "127.0.0.1:0");
    builder.setting("admin.listen", "127.0.0.1:0").setting(path, value)
}

#[tokio::test]
async fn invalid_or_unknown_setting_stops_the_start_and_is_named() {
    for (path, value, also) in [
        ("http.listen", "everywhere", "BELFRY_HTTP__LISTEN"),
        ("http.max_body", "-1", "BELFRY_HTTP__MAX_BODY"),
        ("http.cors_origins", "example.org", "origin"),
        ("database.url", "mysql://localhost/belfry", "postgres"),
        ("database.migrate", "perhaps", "BELFRY_DATABASE__MIGRATE"),
        ("amqp.url", "http://localhost", "amqp://"),
        ("amqp.ingest.mode", "guess", "store"),
        ("auth.public_key_file", "nowhere.pem", "nowhere.pem"),
        ("auth.hs256_secret_files", "nowhere", "cannot read nowhere"),
        ("auth.jwks_file", "nowhere.json", "cannot read nowhere.json"),
        ("auth.jwks_url", "http://id.example.org/keys", "https://"),
        ("auth.jwks_url", "https://ada:hush@id.example.org/keys", "password"),
        ("auth.jwks_ca_file", "ca.pem", "auth.jwks_url"),
        ("auth.jwks_cooldown", "0s", "longer than 0s"),
        ("auth.leeway", "soon", "BELFRY_AUTH__LEEWAY"),
        ("log.format", "xml", "json"),
        ("http.listn", "127.0.0.1:0", "there is no setting"),
        ("no.such.section", "1", "there is no setting"),
    ] {
        // Of a path without any known section only the first part is named.
        let named = path.strip_suffix(".such.section").unwrap_or(path);
        stops_the_start(with(path, value), &[named, also]).await;
    }
}

#[tokio::test]
async fn database_with_another_encoding_stops_the_start() {
    let database = Database::with_encoding("WIN1252").await;
    let builder = || with("database.url", database.url()).setting("auth.hs256_secret", SECRET);
    for builder in [builder(), builder().setting("database.migrate", false)] {
        let Finished { status, err, .. } = builder.finish().await;
        assert_eq!(status.code(), Some(1), "{err}");
        let sentence = err.lines().find(|line| line.starts_with("belfry: ")).unwrap();
        assert!(sentence.contains("WIN1252") && sentence.contains("UTF8"), "{sentence}");
    }
    stops_the_start(builder().arg("migrate"), &["WIN1252", "UTF8"]).await;
}

#[tokio::test]
async fn secrets_and_passwords_are_not_logged() {
    let weak = with("auth.hs256_secret", "hush-hush").start().await;
    weak.log_line("auth.hs256_secret").await;
    assert!(!weak.log().contains("hush-hush"), "{}", weak.log());
    let url = "mysql://ada:hush-hush@localhost/belfry";
    let Finished { err, .. } = with("database.url", url).finish().await;
    assert!(!err.contains("hush-hush"), "{err}");
}

#[tokio::test]
async fn named_settings_file_must_exist_and_be_valid() {
    let missing = Belfry::builder().arg("--config").arg("missing.toml");
    stops_the_start(missing, &["missing.toml"]).await;
    stops_the_start(Belfry::builder().env("BELFRY_CONFIG", "gone.toml"), &["gone.toml"]).await;

    let file = tempfile::NamedTempFile::new().unwrap();
    let asked_for = || Belfry::builder().arg("--config").arg(file.path());
    std::fs::write(file.path(), "[socket]\nqueue = \"long\"\n").unwrap();
    stops_the_start(asked_for(), &["socket.queue"]).await;
    std::fs::write(file.path(), "[socket]\nqeue = 1\n").unwrap();
    stops_the_start(asked_for(), &["socket.qeue", "queue"]).await;
    std::fs::write(file.path(), "[socket\n").unwrap();
    let name = file.path().file_name().unwrap().to_str().unwrap();
    stops_the_start(asked_for(), &[name]).await;
}

#[tokio::test]
async fn flag_overrides_variable_and_variable_overrides_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("[auth]\nhs256_secret = \"{}\"\n", "f".repeat(40)))
        .unwrap();
    let secret_of_variable = "v".repeat(40);
    for (builder, secret) in [
        (Belfry::builder(), "f".repeat(40)),
        (with("auth.hs256_secret", &secret_of_variable), secret_of_variable.clone()),
        (
            with("auth.hs256_secret", &secret_of_variable)
                .arg("--set")
                .arg(format!("auth.hs256_secret={SECRET}")),
            SECRET.to_owned(),
        ),
    ] {
        let belfry = ready(builder.arg("--config").arg(file.path()).start().await).await;
        let http = belfry.http().bearer(Key::hs256(&secret).token("ada").sign());
        http.get("/v1/notifications").await.expect(200);
    }
}

#[tokio::test]
async fn development_sign_in_listens_on_loopback_only() {
    let listen =
        |address: &str| with("http.listen", address).setting("admin.listen", "127.0.0.1:0");
    for address in ["0.0.0.0:0", "[::]:0"] {
        stops_the_start(listen(address), &["http.listen", "loopback"]).await;
    }
    let with_a_key = listen("0.0.0.0:0").setting("auth.hs256_secret", SECRET).start().await;
    assert!(with_a_key.url().starts_with("http://0.0.0.0:"), "{}", with_a_key.url());
}

#[tokio::test]
async fn address_in_use_stops_the_start_and_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let builder = with("http.listen", &address).setting("admin.listen", "127.0.0.1:0");
    stops_the_start(builder, &["http.listen", &address]).await;
}

#[tokio::test]
async fn port_zero_binds_a_free_port_and_prints_it() {
    let builder = Belfry::builder()
        .arg("--set")
        .arg("http.listen=127.0.0.1:0")
        .arg("--set")
        .arg("admin.listen=127.0.0.1:0");
    let builder = builder.setting("http.listen", "127.0.0.1:0");
    let belfry = ready(builder.start().await).await;
    assert!(!belfry.url().ends_with(":0"), "{}", belfry.url());
    belfry.admin_http().get("/metrics").await;
}

async fn run(arguments: &[&str]) -> Finished {
    let builder = arguments.iter().fold(Belfry::builder(), |builder, it| builder.arg(*it));
    builder.finish().await
}

#[tokio::test]
async fn help_and_version_are_printed() {
    let Finished { status, out, .. } = run(&["--help"]).await;
    assert!(status.success());
    for word in ["serve", "migrate", "token", "send", "config", "--set", "BELFRY_CONFIG"] {
        assert!(out.contains(word), "no {word} in:\n{out}");
    }
    for command in ["serve", "migrate", "token", "send", "config"] {
        let Finished { status, out, .. } = run(&[command, "--help"]).await;
        assert!(status.success() && out.contains("Usage"), "{command}:\n{out}");
    }
    assert!(run(&["--version"]).await.out.starts_with("belfry "));
    let unknown = run(&["ring"]).await;
    assert_ne!(unknown.status.code(), Some(0));
    assert!(unknown.err.contains("ring"), "{}", unknown.err);
}

#[tokio::test]
async fn printed_settings_are_the_defaults() {
    let Finished { status, out, .. } = run(&["config"]).await;
    assert!(status.success());
    let settings: toml::Table = out.parse().unwrap();
    assert_eq!(settings["http"]["listen"].as_str(), Some("127.0.0.1:8080"));
    assert_eq!(settings["database"]["url"].as_str(), Some("sqlite://belfry.db"));

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), out).unwrap();
    let builder = Belfry::builder().arg("--config").arg(file.path());
    ready(builder.start().await).await;
}

#[tokio::test]
async fn printed_token_is_accepted() {
    let belfry = ready(Belfry::builder().start().await).await;
    let printed = belfry.run(&["token", "--user", "ada"]).await;
    assert!(printed.status.success(), "{}", printed.err);
    let token = printed.out.trim();
    assert_eq!(token.split('.').count(), 3, "nothing but the token: {token:?}");
    let device = signed_in(Device::node(belfry.url()).token(token)).await;

    let draft = serde_json::json!({ "userId": "ada", "title": "Hello" });
    belfry.http().bearer(token).post("/v1/notifications", &draft).await.expect(201);
    assert_eq!(device.expect("notification:new").await["title"], "Hello");

    let narrow = belfry.run(&["token", "--user", "ada", "--scope", "none", "--ttl", "1m"]).await;
    let problem = belfry.http().bearer(narrow.out.trim()).post("/v1/notifications", &draft).await;
    assert_eq!(problem.expect(403)["code"], "scope_missing");
    let invalid = belfry.run(&["token", "--user", "a b"]).await;
    assert_eq!(invalid.status.code(), Some(1));
    assert!(invalid.err.contains("--user"), "{}", invalid.err);
}

#[tokio::test]
async fn token_command_fails_without_a_signing_key() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), Key::es256().public_pem()).unwrap();
    let builder = Belfry::builder().setting("auth.public_key_file", file.path().display());
    let Finished { status, out, err } =
        builder.arg("token").arg("--user").arg("ada").finish().await;
    assert_eq!((status.code(), out.as_str()), (Some(1), ""));
    assert!(err.starts_with("belfry: "), "{err}");
}

#[tokio::test]
async fn send_command_delivers_a_notification() {
    for setup in [Setup::Embedded, Setup::Servers] {
        let deployment = setup.own().await;
        let (ada, bob) = (deployment.user("ada"), deployment.user("bob"));
        let device = signed_in(ada.node()).await;
        let arguments = [
            "send",
            "--to",
            ada.id(),
            "--to",
            bob.id(),
            "--title",
            "Hello",
            "--message",
            "It works",
            "--type",
            "greeting",
            "--link",
            "/hello",
            "--priority",
            "high",
            "--data",
            r#"{"a":[1]}"#,
        ];
        let sent = deployment.belfry.run(&arguments).await;
        assert!(sent.status.success(), "{}", sent.err);
        let printed: Value = serde_json::from_str(&sent.out).unwrap();
        let received = device.expect("notification:new").await;
        assert_eq!(received, printed["items"][0], "{printed}");
        assert_eq!((&received["title"], &received["type"]), (&"Hello".into(), &"greeting".into()));
        assert_eq!(received["data"], serde_json::json!({ "a": [1] }));
        let count = bob.http().get("/v1/notifications/unread-count").await.expect(200);
        assert_eq!(count["count"], 1);

        let refused = deployment.belfry.run(&["send", "--to", ada.id(), "--title", " "]).await;
        assert_eq!(refused.status.code(), Some(1));
        assert!(refused.err.contains("422"), "{}", refused.err);
    }
    let unreachable =
        run(&["send", "--to", "ada", "--title", "Hello", "--url", "http://127.0.0.1:1"]).await;
    assert_eq!(unreachable.status.code(), Some(1));
    assert!(unreachable.err.contains("http://127.0.0.1:1"), "{}", unreachable.err);
}

#[tokio::test]
async fn migrate_command_updates_the_schema() {
    let database = fresh_database().await;
    let builder = || {
        let builder = Belfry::builder().database(database.url());
        builder.setting("auth.hs256_secret", SECRET)
    };
    // A start without migrations finds no schema, logs it, and is not ready.
    let waits = builder().setting("database.migrate", false).start().await;
    waits.http().get("/health/live").await.expect(200);
    waits.http().get("/health/ready").await.expect(503);

    for _ in 0..2 {
        let Finished { status, out, err } = builder().arg("migrate").finish().await;
        assert!(status.success(), "{err}");
        assert_ne!(out, "");
    }
    crate::setup::until_ready(&waits).await;
    let http = Http::new(waits.url()).bearer(crate::setup::key().token("ada").sign());
    http.get("/v1/notifications").await.expect(200);
}
