use std::path::PathBuf;
use std::time::Duration;

use super::*;

mod documents;
mod forward;
mod misread;

fn load(variables: &[(&str, &str)]) -> Result<Config, String> {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let layers = Layers { variables: variables.iter().map(own).collect(), ..Layers::default() };
    Config::load(layers).map_err(|error| error.to_string())
}

#[test]
fn default_file_is_complete_and_valid() {
    let config = load(&[]).unwrap();
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.database.url.reveal(), "sqlite://belfry.db");
    assert!(config.auth.is_development());
    assert_eq!(config.amqp.url, None);
    assert_eq!(config.auth.leeway, Duration::from_secs(5));
}

#[test]
fn variable_overrides_file_and_flag_overrides_variable() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("settings.toml");
    std::fs::write(&file, "[http]\nlisten = '127.0.0.1:1'\n[node]\nname = 'file'\n").unwrap();
    let own = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let config = Config::load(Layers {
        file: Some(file),
        variables: vec![
            own("BELFRY_HTTP__LISTEN", "127.0.0.1:2"),
            own("BELFRY_DATABASE__MIGRATE", "false"),
        ],
        flags: vec![own("http.listen", "127.0.0.1:3")],
        ..Layers::default()
    })
    .unwrap();
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:3");
    assert_eq!(config.node.name.as_deref(), Some("file"));
    assert!(!config.database.migrate);
}

#[test]
fn variables_are_texts_even_if_they_look_like_numbers() {
    let config = load(&[
        ("BELFRY_AUTH__HS256_SECRET", "00000000000000000000000000000042"),
        ("BELFRY_AUTH__LEEWAY", "7"),
        ("BELFRY_AUTH__AUDIENCE", "a, b"),
        ("BELFRY_AMQP__INGEST__PREFETCH", "10"),
        ("BELFRY_SHUTDOWN__SPREAD", "250ms"),
        ("BELFRY_SOCKET__TOKEN_IN_QUERY", "true"),
    ])
    .unwrap();
    let secret = config.auth.hs256_secret.unwrap();
    assert_eq!(secret.reveal(), "00000000000000000000000000000042");
    assert_eq!(config.auth.leeway, Duration::from_secs(7));
    assert_eq!(config.auth.audience, ["a", "b"]);
    assert_eq!(config.amqp.ingest.prefetch, 10);
    assert_eq!(config.shutdown.spread, Duration::from_millis(250));
    assert!(config.socket.token_in_query);
}

#[test]
fn invalid_setting_is_named_in_the_error() {
    for (name, value, named) in [
        ("BELFRY_HTTP__LISTEN", "nowhere", "http.listen"),
        ("BELFRY_HTTP__LISTN", "x", "http.listn"),
        ("BELFRY_HTTP__LISTEN", "unix:", "http.listen"),
        ("BELFRY_HTTP__HEADER_TIMEOUT", "0s", "http.header_timeout"),
        ("BELFRY_HTTP__KEEP_ALIVE", "0s", "http.keep_alive must be longer than 0s"),
        ("BELFRY_HTTP__KEEP_ALIVE", "long", "http.keep_alive"),
        ("BELFRY_HTTP__CORS_CREDENTIALS", "maybe", "http.cors_credentials"),
        ("BELFRY_HTTP__TLS__KEY_FILE", "key.pem", "http.tls.certificate_file"),
        ("BELFRY_NONSENSE", "x", "nonsense"),
        ("BELFRY_DATABASE__MIGRATE", "maybe", "database.migrate"),
        ("BELFRY_DATABASE__URL", "mysql://x", "database.url"),
        ("BELFRY_AMQP__URL", "http://x", "amqp.url"),
        ("BELFRY_AMQP__INGEST__MODE", "both", "amqp.ingest.mode"),
        ("BELFRY_AMQP__INGEST__PREFETCH", "-1", "amqp.ingest.prefetch"),
        ("BELFRY_AUTH__LEEWAY", "soon", "auth.leeway"),
        ("BELFRY_LOG__FORMAT", "xml", "log.format"),
        ("BELFRY_LOG__LEVEL", "warning", "log.level"),
        ("BELFRY_LOG__LEVEL", "", "log.level"),
        ("BELFRY_PORT", "8080", "port"),
        ("BELFRY_", "x", "variable BELFRY_"),
        ("BELFRY___LISTEN", "x", "variable BELFRY___LISTEN"),
        ("BELFRY_AUTH__JWKS_MAX_STALE", "", "auth.jwks_max_stale"),
        ("BELFRY_AUTH__DEVELOPMENT_KEY_FILE", "", "auth.development_key_file"),
        ("BELFRY_DATABASE__URL", "", "database.url"),
    ] {
        let problem = load(&[(name, value)]).unwrap_err();
        assert!(problem.contains(named), "{name}={value}: {problem}");
    }
}

#[test]
fn revocations_must_be_kept_as_long_as_a_token_can_live() {
    let load_with = |max_lifetime, leeway, kept| {
        load(&[
            ("BELFRY_AUTH__MAX_LIFETIME", max_lifetime),
            ("BELFRY_AUTH__LEEWAY", leeway),
            ("BELFRY_RETENTION__REVOCATIONS", kept),
        ])
    };
    // The revocations must be kept for the maximum lifetime plus twice the leeway.
    for (max_lifetime, leeway, kept) in
        [("89d", "5s", "90d"), ("1h", "30s", "61m"), ("", "5s", "1s")]
    {
        load_with(max_lifetime, leeway, kept).unwrap();
    }
    for (max_lifetime, leeway, kept) in
        [("91d", "5s", "90d"), ("90d", "5s", "90d"), ("1h", "31s", "61m")]
    {
        let problem = load_with(max_lifetime, leeway, kept).unwrap_err();
        assert!(problem.contains("retention.revocations is"), "{problem}");
    }
    assert_eq!(load(&[]).unwrap().auth.max_lifetime, None);
    assert!(load_with("0s", "5s", "1h").unwrap_err().contains("auth.max_lifetime must be longer"));
}

#[test]
fn invalid_list_entry_is_named_with_its_reason() {
    for (name, value, expected) in [
        (
            "BELFRY_HTTP__CORS_ORIGINS",
            "https://a.example.org, https://a/b",
            "setting http.cors_origins (variable BELFRY_HTTP__CORS_ORIGINS): \"https://a/b\": an origin is",
        ),
        (
            "BELFRY_HTTP__CORS_ORIGINS",
            "null",
            "\"null\": null is the origin of every sandboxed page",
        ),
        (
            "BELFRY_HTTP__CORS_ORIGINS",
            "https://*",
            "\"https://*\": * stands for the leftmost labels",
        ),
        ("BELFRY_HTTP__CORS_ORIGINS", "a.example.org", "\"a.example.org\": the scheme is missing"),
        ("BELFRY_HTTP__CORS_HEADERS", "x-a, x b", "\"x b\": a request header is a name such as"),
        ("BELFRY_HTTP__CORS_HEADERS", "*", "\"*\": a request header is a name such as"),
    ] {
        let problem = load(&[(name, value)]).unwrap_err();
        assert!(problem.contains(expected), "{name}={value}: {problem}");
    }
    let config = load(&[
        ("BELFRY_HTTP__CORS_ORIGINS", "https://*.preview.example.org,capacitor://localhost"),
        ("BELFRY_HTTP__CORS_CREDENTIALS", "true"),
        ("BELFRY_HTTP__CORS_HEADERS", "X-Tenant, x-b3-traceid"),
    ])
    .unwrap();
    assert_eq!((config.http.cors_origins.len(), config.http.cors_headers.len()), (2, 2));
    assert!(config.http.cors_credentials);
}

#[test]
fn base_path_starts_with_a_slash_and_does_not_end_with_a_slash() {
    for wrong in ["notify", "/", "/notify/", "/a//b", "/a/../b", "/a?b", "/a#b"] {
        let problem = load(&[("BELFRY_HTTP__BASE_PATH", wrong)]).unwrap_err();
        let expected = format!("{wrong:?}: a base path is empty, or starts with /");
        assert!(problem.contains("http.base_path") && problem.contains(&expected), "{problem}");
    }
    assert!(load(&[]).unwrap().http.base_path.is_root());
    let config = load(&[("BELFRY_HTTP__BASE_PATH", "/api/notify")]).unwrap();
    assert_eq!(config.http.base_path.as_str(), "/api/notify");
}

#[test]
fn limits_accept_whole_numbers_including_zero_only() {
    const LIMITS: [&str; 9] = [
        "connections",
        "connections_per_address",
        "sessions_per_user",
        "handshakes_per_second",
        "handshakes_per_address",
        "messages_per_second",
        "requests_per_second",
        "writes_per_second",
        "work_per_user",
    ];
    for limit in LIMITS {
        let load = |value| {
            let variable = format!("BELFRY_LIMITS__{}", limit.to_uppercase());
            load(&[(variable.as_str(), value)])
        };
        for wrong in ["-1", "1.5", "many", "", "100000000000000000000"] {
            let problem = load(wrong).unwrap_err();
            assert!(problem.contains(&format!("limits.{limit}")), "{wrong:?}: {problem}");
        }
        for right in ["0", "1", "4000000000"] {
            load(right).unwrap();
        }
    }
    for wrong in ["", "both", "Oldest", "0"] {
        let problem = load(&[("BELFRY_LIMITS__OVER", wrong)]).unwrap_err();
        assert!(problem.contains("limits.over"), "{wrong:?}: {problem}");
    }
    let problem = load(&[("BELFRY_LIMITS__CONNECTION", "1")]).unwrap_err();
    assert!(problem.contains("limits.connection"), "{problem}");
}

#[test]
fn link_schemes_are_names_that_run_no_script() {
    for wrong in ["javascript", "https://", "my app", "*", "7up"] {
        let problem = load(&[("BELFRY_NOTIFICATIONS__LINK_SCHEMES", wrong)]).unwrap_err();
        assert!(problem.contains("notifications.link_schemes"), "{wrong}: {problem}");
    }
    assert_eq!(load(&[]).unwrap().notifications.links(), belfry_domain::LinkSchemes::default());
    let schemes = [("BELFRY_NOTIFICATIONS__LINK_SCHEMES", "https, MyApp")];
    assert_eq!(load(&schemes).unwrap().notifications.link_schemes.len(), 2);
}

#[test]
fn missing_settings_file_is_an_error() {
    let layers = Layers { file: Some("no/such.toml".into()), ..Layers::default() };
    assert!(Config::load(layers).unwrap_err().to_string().contains("no/such.toml"));
}

#[test]
fn development_key_requires_a_loopback_address() {
    for local in ["[::1]:8080", "unix:/run/belfry.sock"] {
        load(&[("BELFRY_HTTP__LISTEN", local)]).unwrap();
    }
    let problem = load(&[("BELFRY_HTTP__LISTEN", "0.0.0.0:8080")]).unwrap_err();
    assert!(problem.contains("loopback"), "{problem}");
    let secret = "0123456789012345678901234567890123456789";
    load(&[("BELFRY_HTTP__LISTEN", "0.0.0.0:8080"), ("BELFRY_AUTH__HS256_SECRET", secret)])
        .unwrap();
}

#[test]
fn key_files_are_one_value_or_a_list() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("settings.toml");
    let load = |text: &str, variables: Vec<(String, String)>| {
        std::fs::write(&file, text).unwrap();
        let layers = Layers { file: Some(file.clone()), variables, ..Layers::default() };
        Config::load(layers).unwrap().auth
    };
    let one = load("[auth]\npublic_key_file = 'a.pem'\n", Vec::new());
    assert_eq!(one.public_key_file, [PathBuf::from("a.pem")]);
    let two = load("[auth]\npublic_key_file = ['a.pem', 'b, c.pem']\n", Vec::new());
    assert_eq!(two.public_key_file, [PathBuf::from("a.pem"), PathBuf::from("b, c.pem")]);
    let variable = ("BELFRY_AUTH__HS256_SECRET_FILES".to_owned(), "new, old".to_owned());
    let both =
        load("[auth]\njwks_file = 'jwks.json'\njwks_max_stale = 'unlimited'\n", vec![variable]);
    assert_eq!(both.hs256_secret_files, [PathBuf::from("new"), PathBuf::from("old")]);
    assert_eq!((both.jwks_file.len(), both.jwks_max_stale), (1, None));
    assert!([one, two, both].iter().all(|auth| !auth.is_development()));
}

#[test]
fn debug_output_hides_secrets() {
    let config = load(&[
        ("BELFRY_AUTH__HS256_SECRET", "s3cret-s3cret-s3cret-s3cret-s3cret"),
        ("BELFRY_DATABASE__URL", "postgres://u:s3cret@h/d"),
        ("BELFRY_AMQP__URL", "amqp://u:s3cret@h"),
    ])
    .unwrap();
    assert!(!format!("{config:?}").contains("s3cret"));
}

#[test]
fn node_name_defaults_to_host_name_and_port() {
    let config = load(&[]).unwrap();
    let name = config.node.name_at(&"127.0.0.1:8080".parse().unwrap());
    assert!(name.ends_with("-8080") && !name.contains(char::is_whitespace), "{name}");
}

#[test]
fn connection_limit_is_explicit_only_if_a_layer_sets_it() {
    assert!(!load(&[]).unwrap().limits.connections_is_explicit);
    let default = load(&[("BELFRY_LIMITS__CONNECTIONS", "20000")]).unwrap();
    assert!(default.limits.connections_is_explicit, "set to the default value");
    let problem = load(&[("BELFRY_LIMITS__CONNECTIONS_IS_EXPLICIT", "true")]).unwrap_err();
    assert!(problem.contains("there is no setting limits.connections_is_explicit"), "{problem}");
}

#[test]
fn cookies_are_refused_where_pages_of_any_origin_may_connect() {
    let any = ("BELFRY_HTTP__CORS_ORIGINS", "https://app.example.org, *");
    load(&[any]).unwrap();
    for (name, value, setting) in [
        ("BELFRY_HTTP__CORS_CREDENTIALS", "true", "http.cors_credentials"),
        ("BELFRY_AUTH__COOKIE", "jwt", "auth.cookie"),
    ] {
        let problem = load(&[any, (name, value)]).unwrap_err();
        assert!(problem.contains(&format!("{setting} is set: any page")), "{problem}");
    }
}

#[test]
fn user_claims_and_socket_names_are_lists_in_files_and_texts_in_variables() {
    let config = load(&[
        ("BELFRY_AUTH__USER_CLAIM", "sub, userId"),
        ("BELFRY_SOCKET__COMPAT", "camel-case, count-number"),
        ("BELFRY_SOCKET__EVENTS__NEW", "notification as {data}, newNotification"),
        ("BELFRY_SOCKET__MESSAGES__LIST", "getNotifications as items"),
    ])
    .unwrap();
    assert_eq!(config.auth.user_claim, ["sub", "userId"]);
    let lines = config.socket.names().unwrap().lines();
    for line in [
        "socket.events.new: notification as {data}",
        "socket.events.new: newNotification as bare",
        "socket.events.unread_count: unreadCount as number",
        "socket.messages.unread_count: getUnreadCount as number",
        "socket.messages.list: getNotifications as items",
    ] {
        assert!(lines.iter().any(|printed| printed == line), "no {line} in {lines:#?}");
    }
}
