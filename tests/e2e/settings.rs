//! Settings: the values that stop the start, the messages about them, and the precedence of the sources.

use std::os::unix::fs::PermissionsExt as _;

use belfry_tests::postgres::Database;
use belfry_tests::process::{Belfry, Builder, Finished};
use belfry_tests::tokens::Key;

use crate::setup::{SECRET, ready};

/// Checks that `belfry` does not start, but exits with code 1 and a one-line message that has all these words.
pub(crate) async fn assert_start_fails(builder: Builder, words: &[&str]) {
    let Finished { status, out, err } = builder.finish().await;
    assert_eq!(status.code(), Some(1), "{words:?}: {err}");
    assert_eq!(out, "", "{words:?}: {err}");
    let sentence = err.strip_prefix("belfry: ").unwrap_or_else(|| panic!("{words:?}: {err}"));
    assert!(!sentence.contains('\n'), "one sentence, not {err:?}");
    for word in words {
        assert!(sentence.contains(word), "no {word:?} in {sentence:?}");
    }
}

/// A `belfry` with this setting, on free ports unless the setting is an address.
pub(crate) fn with_setting(path: &str, value: &str) -> Builder {
    let builder = Belfry::builder().setting("http.listen", "127.0.0.1:0");
    builder.setting("admin.listen", "127.0.0.1:0").setting(path, value)
}

#[tokio::test]
async fn invalid_or_unknown_setting_stops_the_start_and_is_named() {
    // Each row has a setting, an invalid value, and words of the message besides the setting.
    for (path, value, hint) in [
        ("http.listen", "everywhere", "BELFRY_HTTP__LISTEN"),
        ("http.max_body", "-1", "BELFRY_HTTP__MAX_BODY"),
        ("http.cors_origins", "example.org", "the scheme is missing"),
        ("auth.cookie", "a b", "hyphens"),
        ("auth.user_claim", ",", "claim"),
        ("auth.max_session", "0s", "longer than 0s"),
        ("socket.refusal", "drop", "connect_error"),
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
        ("log.level", "warning", "belfry_adapters=debug"),
        ("retention.notifications", "0", "leave it unset"),
        ("retention.revocations", "0s", "longer than 0s"),
        ("auth.hs256_secret", "", "no other key is set"),
        ("database.url", "postgres://ada@h1,h2/belfry", "several hosts"),
        ("http.listn", "127.0.0.1:0", "there is no setting"),
        ("no.such.section", "1", "there is no setting"),
        ("socket.compat", "nest", "nestjs-default"),
        ("socket.compat", "camel-case, snake-case", "several presets"),
        ("socket.namespaces", "ws", "/ws/notifications"),
        ("socket.namespaces", "/a,/b,/c,/d,/e,/f,/g", "at most 6"),
        ("socket.events.created", "notification", "unread_count"),
        ("socket.events.new", "notification as list", "{notification}"),
        ("socket.events.new", "notification as number", "bare, {notification}, {data}"),
        ("socket.events.deleted", "exception", "another meaning"),
        ("socket.messages.list", "notification:mark_read", "another meaning"),
    ] {
        // If the first section of a path is unknown, the message names only this section.
        let named = path.strip_suffix(".such.section").unwrap_or(path);
        assert_start_fails(with_setting(path, value), &[named, hint]).await;
    }
}

#[tokio::test]
async fn database_with_another_encoding_stops_the_start() {
    let database = Database::with_encoding("WIN1252").await;
    let builder =
        || with_setting("database.url", database.url()).setting("auth.hs256_secret", SECRET);
    for builder in [builder(), builder().setting("database.migrate", false)] {
        let Finished { status, err, .. } = builder.finish().await;
        assert_eq!(status.code(), Some(1), "{err}");
        let sentence = err.lines().find(|line| line.starts_with("belfry: ")).unwrap();
        assert!(sentence.contains("WIN1252") && sentence.contains("UTF8"), "{sentence}");
    }
    assert_start_fails(builder().arg("migrate"), &["WIN1252", "UTF8"]).await;
}

#[tokio::test]
async fn secrets_and_passwords_are_not_logged() {
    let weak = with_setting("auth.hs256_secret", "hush-hush").start().await;
    weak.log_line("auth.hs256_secret").await;
    assert!(!weak.log().contains("hush-hush"), "{}", weak.log());
    let url = "mysql://ada:hush-hush@localhost/belfry";
    let Finished { err, .. } = with_setting("database.url", url).finish().await;
    assert!(!err.contains("hush-hush"), "{err}");
}

#[tokio::test]
async fn secret_in_a_flag_stops_the_start_without_being_printed() {
    for flag in [
        "auth.hs256_secret=hush-hush-hush-hush-hush-hush-hush",
        "database.url=postgres://ada:hush-hush@localhost/belfry",
        "amqp.url=amqp://ada:hush-hush@localhost",
    ] {
        let builder = || Belfry::builder().arg("--set").arg(flag);
        let setting = flag.split_once('=').unwrap().0;
        assert_start_fails(builder(), &[setting, "flag", "ps"]).await;
        assert!(!builder().finish().await.err.contains("hush"), "{flag}");
    }
}

#[tokio::test]
async fn guessable_secret_is_refused_unless_only_this_machine_can_connect() {
    let key = Key::es256();
    for secret in ["change-me-change-me-change-me-change-me", &" x".repeat(32), key.public_pem()] {
        let builder =
            |listen: &str| with_setting("http.listen", listen).setting("auth.hs256_secret", secret);
        assert_start_fails(builder("0.0.0.0:0"), &["auth.hs256_secret", "the secret"]).await;
        builder("127.0.0.1:0").start().await.log_line("HMAC secret can be guessed").await;
    }
}

#[tokio::test]
async fn variables_of_a_kubernetes_service_are_ignored_and_unreadable_ones_stop_the_start() {
    use std::os::unix::ffi::OsStringExt as _;

    let injected = || {
        Belfry::builder()
            .env("BELFRY_SERVICE_HOST", "10.0.0.11")
            .env("BELFRY_SERVICE_PORT_HTTP", "8080")
            .env("BELFRY_PORT", "tcp://10.0.0.11:8080")
            .env("BELFRY_PORT_8080_TCP_ADDR", "10.0.0.11")
            .env("BELFRY_CONFIG", "")
    };
    ready(injected().start().await).await;
    assert_start_fails(injected().env("BELFRY_PORT", "8080"), &["there is no setting port"]).await;
    let latin1 = std::ffi::OsString::from_vec(b"secr\xe9t".repeat(8));
    let unreadable = Belfry::builder().env("BELFRY_AUTH__HS256_SECRET", latin1);
    assert_start_fails(unreadable, &["BELFRY_AUTH__HS256_SECRET", "UTF-8"]).await;
}

#[tokio::test]
async fn file_that_every_user_can_write_to_stops_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str, mode| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    let secret = |mode| {
        let path = file("secret", SECRET, mode);
        Belfry::builder().setting("auth.hs256_secret_files", path.display())
    };
    let settings = |mode| Belfry::builder().arg("--config").arg(file("settings.toml", "", mode));
    assert_start_fails(secret(0o666), &["auth.hs256_secret_files", "every user can write to"])
        .await;
    assert_start_fails(settings(0o646), &["settings.toml", "every user can write to"]).await;

    secret(0o644).start().await.log_line("every user can read this secret file").await;
    let private = secret(0o600).start().await;
    let line = settings(0o644).start().await.log_line("server started").await;
    assert!(line.contains("settings.toml"), "{line}");
    assert!(!private.log().contains("every user can read"), "{}", private.log());
}

#[tokio::test]
async fn named_settings_file_must_exist_and_be_valid() {
    let missing = Belfry::builder().arg("--config").arg("missing.toml");
    assert_start_fails(missing, &["missing.toml"]).await;
    assert_start_fails(Belfry::builder().env("BELFRY_CONFIG", "gone.toml"), &["gone.toml"]).await;

    let file = tempfile::NamedTempFile::new().unwrap();
    let with_file = || Belfry::builder().arg("--config").arg(file.path());
    std::fs::write(file.path(), "[socket]\nqueue = \"long\"\n").unwrap();
    assert_start_fails(with_file(), &["socket.queue"]).await;
    std::fs::write(file.path(), "[socket]\nqeue = 1\n").unwrap();
    assert_start_fails(with_file(), &["socket.qeue", "queue"]).await;
    std::fs::write(file.path(), "[socket\n").unwrap();
    let name = file.path().file_name().unwrap().to_str().unwrap();
    assert_start_fails(with_file(), &[name]).await;
}

#[tokio::test]
async fn flag_overrides_variable_and_variable_overrides_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("[auth]\nhs256_secret = \"{}\"\n", "f".repeat(40)))
        .unwrap();
    let secret_of_variable = "v".repeat(40);
    let with_base_path = |builder: Builder| builder.setting("http.base_path", "/variable");
    for (builder, secret, path) in [
        (Belfry::builder(), "f".repeat(40), ""),
        (with_setting("auth.hs256_secret", &secret_of_variable), secret_of_variable.clone(), ""),
        // An empty variable counts as unset.
        (with_base_path(with_setting("auth.hs256_secret", "")), "f".repeat(40), "/variable"),
        (
            with_base_path(Belfry::builder()).arg("--set").arg("http.base_path=/flag"),
            "f".repeat(40),
            "/flag",
        ),
    ] {
        let belfry = ready(builder.arg("--config").arg(file.path()).start().await).await;
        assert!(belfry.url().ends_with(path), "{}", belfry.url());
        let http = belfry.http().bearer(Key::hs256(&secret).token("ada").sign());
        http.get("/v1/notifications").await.expect(200);
    }
}

#[tokio::test]
async fn development_sign_in_listens_on_loopback_only() {
    let listen =
        |address: &str| with_setting("http.listen", address).setting("admin.listen", "127.0.0.1:0");
    for address in ["0.0.0.0:0", "[::]:0"] {
        assert_start_fails(listen(address), &["http.listen", "loopback"]).await;
    }
    let with_a_key = listen("0.0.0.0:0").setting("auth.hs256_secret", SECRET).start().await;
    assert!(with_a_key.url().starts_with("http://0.0.0.0:"), "{}", with_a_key.url());
}

#[tokio::test]
async fn address_in_use_stops_the_start_and_is_named() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let builder = with_setting("http.listen", &address).setting("admin.listen", "127.0.0.1:0");
    assert_start_fails(builder, &["http.listen", &address]).await;
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
