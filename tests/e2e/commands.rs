//! The commands of the executable, such as `belfry token`.

use belfry_tests::clients::Device;
use belfry_tests::http::Http;
use belfry_tests::postgres::fresh_database;
use belfry_tests::process::{Belfry, Finished};
use belfry_tests::tokens::Key;
use serde_json::Value;

use crate::settings::{assert_start_fails, with_setting};
use crate::setup::{SECRET, Setup, ready, signed_in};

async fn run(arguments: &[&str]) -> Finished {
    let builder = arguments.iter().fold(Belfry::builder(), |builder, it| builder.arg(*it));
    builder.finish().await
}

#[tokio::test]
async fn help_and_version_are_printed() {
    const COMMANDS: [&str; 7] =
        ["serve", "migrate", "token", "send", "users", "config", "check-config"];
    let Finished { status, out, .. } = run(&["--help"]).await;
    assert!(status.success());
    for word in COMMANDS.iter().chain(&["--set", "BELFRY_CONFIG"]) {
        assert!(out.contains(word), "no {word} in:\n{out}");
    }
    for command in COMMANDS {
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
    let waiting = builder().setting("database.migrate", false).start().await;
    waiting.http().get("/health/live").await.expect(200);
    waiting.http().get("/health/ready").await.expect(503);

    for _ in 0..2 {
        let Finished { status, out, err } = builder().arg("migrate").finish().await;
        assert!(status.success(), "{err}");
        assert_ne!(out, "");
    }
    crate::setup::until_ready(&waiting).await;
    let http = Http::new(waiting.url()).bearer(crate::setup::key().token("ada").sign());
    http.get("/v1/notifications").await.expect(200);
}

#[tokio::test]
async fn check_config_prints_settings_with_their_sources_and_starts_nothing() {
    let folder = tempfile::tempdir().unwrap();
    // The settings file is a pipe, like a process substitution of a shell.
    let pipe = folder.path().join("settings");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let settings = "[auth]\nhs256_secret = 'hush-hush'\n[http]\nmax_body = 7\n";
    let writer_end = pipe.clone();
    let writer = std::thread::spawn(move || std::fs::write(writer_end, settings).unwrap());
    let database = folder.path().join("belfry.db");
    let checked = with_setting("database.url", &format!("sqlite://{}", database.display()))
        .setting("amqp.url", "amqp://ada:hush-hush@nowhere.invalid")
        .arg("check-config")
        .arg("--config")
        .arg(&pipe);
    let Finished { status, out, err } = checked.finish().await;
    writer.join().unwrap();
    assert!(status.success(), "{err}");
    for line in [
        format!("# settings file: {}", pipe.display()),
        format!("http.max_body = 7  # in {}", pipe.display()),
        format!("auth.hs256_secret = \"…\"  # in {}", pipe.display()),
        "amqp.url = \"amqp://ada:…@nowhere.invalid\"  # variable BELFRY_AMQP__URL".to_owned(),
        "log.level = \"info\"  # default".to_owned(),
    ] {
        assert!(out.lines().any(|it| it == line), "no {line} in {out}");
    }
    assert!(!out.contains("hush") && !err.contains("hush"), "{out}{err}");
    assert!(!database.exists());

    for (path, value) in [("auth.public_key_file", "nowhere.pem"), ("http.listn", "x")] {
        assert_start_fails(with_setting(path, value).arg("check-config"), &[path]).await;
    }
}
