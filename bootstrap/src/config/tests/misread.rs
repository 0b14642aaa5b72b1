//! Settings that would be misread stop the start, and the effective settings are printed without secrets.

use belfry_adapters::outbound::jwt::{GuessableSecret, Secret};

use super::super::{Config, DEFAULT_FILE, Layers, auth, optional};
use super::load;

#[test]
fn zero_is_refused_where_it_would_lose_data_or_stop_all_service() {
    for setting in [
        "retention.notifications",
        "retention.deleted",
        "retention.idempotency_keys",
        "retention.revocations",
        "retention.every",
        "http.header_timeout",
        "http.keep_alive",
        "http.request_timeout",
        "http.max_body",
        "socket.ping_interval",
        "socket.ping_timeout",
        "socket.connect_timeout",
        "socket.queue",
        "socket.queue_bytes",
        "socket.max_payload",
        "amqp.ingest.prefetch",
        "amqp.node.expires",
        "amqp.node.max_length",
        "auth.jwks_refresh",
        "auth.jwks_cooldown",
        "auth.jwks_timeout",
        "auth.jwks_max_stale",
        "database.max_connections",
    ] {
        let variable = format!("BELFRY_{}", setting.replace('.', "__").to_uppercase());
        let problem = load(&[(&variable, "0")]).unwrap_err();
        assert!(problem.starts_with(&format!("{setting} must be ")), "{setting}: {problem}");
    }
    let problem = load(&[("BELFRY_RETENTION__NOTIFICATIONS", "0s")]).unwrap_err();
    assert!(problem.contains("leave it unset to keep notifications"), "{problem}");
}

#[test]
fn empty_optional_setting_counts_as_unset() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("settings.toml");
    let text = "[auth]\nhs256_secret = 'a secret of the settings file'\nissuer = 'https://id.example.org/'\n\
                jwks_url = ''\n[node]\nname = ' '\n";
    std::fs::write(&file, text).unwrap();
    let variable =
        |path: &&str| (format!("BELFRY_{}", path.replace('.', "__").to_uppercase()), String::new());
    let config = Config::load(Layers {
        file: Some(file),
        variables: optional::OPTIONAL.iter().map(variable).collect(),
        ..Layers::default()
    })
    .unwrap();
    let (auth, http) = (&config.auth, &config.http);
    assert!(auth.hs256_secret.is_some(), "an empty variable does not override the file");
    assert_eq!(auth.issuer.as_deref(), Some("https://id.example.org/"));
    assert_eq!((&auth.jwks_url, &auth.jwks_ca_file), (&None, &None));
    assert_eq!((&http.tls.certificate_file, &http.tls.key_file), (&None, &None));
    assert_eq!((&config.node.name, &config.amqp.url), (&None, &None));
    assert_eq!(config.retention.notifications, None);
    assert!(auth.audience.is_empty() && auth.public_key_file.is_empty());
}

#[test]
fn empty_key_does_not_become_a_development_key() {
    for setting in auth::KEY_SETTINGS {
        let variable = format!("BELFRY_{}", setting.replace('.', "__").to_uppercase());
        for empty in ["", "  "] {
            let problem = load(&[(&variable, empty)]).unwrap_err();
            assert!(
                problem.starts_with(&format!("{setting} (variable {variable}) is empty")),
                "{problem}"
            );
        }
    }
    load(&[("BELFRY_AUTH__HS256_SECRET", ""), ("BELFRY_AUTH__JWKS_FILE", "jwks.json")]).unwrap();
}

#[test]
fn url_that_the_library_would_misunderstand_is_refused_without_its_password() {
    for (name, url, expected) in [
        ("BELFRY_DATABASE__URL", "postgres://u:s3cret@h1:1,h2:2/d", "names several hosts"),
        ("BELFRY_DATABASE__URL", "postgres://u:s3cret@/d?host=h1,h2", "names several hosts"),
        (
            "BELFRY_DATABASE__URL",
            "postgres://h/d?sslpassword=s3cret",
            "the parameter \"sslpassword\"",
        ),
        ("BELFRY_DATABASE__URL", "postgres://u:s3/cret@h/d", "percent-encode"),
        ("BELFRY_AMQP__URL", "amqp://u:s3cret@h1:1,h2:2/v", "names several hosts"),
    ] {
        let problem = load(&[(name, url)]).unwrap_err();
        assert!(problem.contains(expected) && !problem.contains("s3"), "{url}: {problem}");
    }
    for url in [
        "postgres://u:p,q@h/d?sslmode=require&options=-c%20search_path%3Da,b",
        "postgres:///d?host=/run/postgresql&user=u&options[search_path]=a",
    ] {
        load(&[("BELFRY_DATABASE__URL", url)]).unwrap();
    }
}

#[test]
fn secret_in_a_flag_is_refused() {
    let load = |path: &str, value: &str| {
        let flags = vec![(path.to_owned(), value.to_owned())];
        Config::load(Layers { flags, ..Layers::default() }).map_err(|error| error.to_string())
    };
    for (path, value) in [
        ("auth.hs256_secret", "s3cret-s3cret-s3cret-s3cret-s3cret"),
        ("database.url", "postgres://u:s3cret@h/d"),
        ("amqp.url", "amqp://u:s3cret@h"),
    ] {
        let problem = load(path, value).unwrap_err();
        assert!(problem.starts_with(&format!("{path}: a flag must not contain a ")), "{problem}");
        assert!(!problem.contains("s3cret"), "{problem}");
    }
    load("database.url", "postgres://u@h/d").unwrap();
    load("amqp.url", "amqp://h").unwrap();
    assert!(load("", "x").unwrap_err().contains("there is no setting"));
}

#[test]
fn effective_settings_have_their_source_and_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("settings.toml");
    std::fs::write(&file, "[http]\nmax_body = 5\n[auth]\nhs256_secret = 's3cret'\n").unwrap();
    let own = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let effective = Config::effective(Layers {
        file: Some(file.clone()),
        variables: vec![own("BELFRY_DATABASE__URL", "postgres://u:s3cret@h/d?password=s3cret")],
        flags: vec![own("log.level", "debug")],
        injected: vec!["BELFRY_PORT".to_owned()],
    })
    .unwrap();
    let lines: Vec<_> = effective.settings.iter().map(ToString::to_string).collect();
    for line in [
        format!("http.max_body = 5  # in {}", file.display()),
        format!("auth.hs256_secret = \"…\"  # in {}", file.display()),
        "database.url = \"postgres://u:…@h/d?password=…\"  # variable BELFRY_DATABASE__URL"
            .to_owned(),
        "log.level = \"debug\"  # flag for log.level".to_owned(),
        "http.listen = \"127.0.0.1:8080\"  # default".to_owned(),
        "http.cors_origins = []  # default".to_owned(),
    ] {
        assert!(lines.contains(&line), "no {line} in {lines:#?}");
    }
    assert!(!lines.join("\n").contains("s3cret"));
    assert_eq!(effective.injected, ["BELFRY_PORT"]);
    assert_eq!(effective.config.settings_file, Some(file));
    assert!(effective.config.settings_file_has_secret);
}

#[test]
fn development_page_is_served_only_where_all_clients_are_direct_and_local() {
    let serves = |variables: &[(&str, &str)]| load(variables).unwrap().serves_development_page();
    assert!(serves(&[]) && serves(&[("BELFRY_HTTP__LISTEN", "[::1]:8080")]));
    for variables in [
        &[("BELFRY_AUTH__HS256_SECRET", "a secret of at least thirty-two bytes")][..],
        &[("BELFRY_HTTP__LISTEN", "unix:/run/belfry.sock")],
        &[("BELFRY_HTTP__TRUSTED_PROXIES", "127.0.0.1")],
        &[("BELFRY_HTTP__CORS_ORIGINS", "https://app.example.org")],
        &[("BELFRY_HTTP__TLS__CERTIFICATE_FILE", "a"), ("BELFRY_HTTP__TLS__KEY_FILE", "b")],
    ] {
        assert!(!serves(variables), "{variables:?}");
    }
}

#[test]
fn example_secret_of_the_default_file_is_refused_as_a_secret() {
    let mut lines = DEFAULT_FILE.lines();
    let example = lines.find_map(|line| line.strip_prefix("# hs256_secret = ")).unwrap();
    let example = Secret::new(example.trim_matches('"').as_bytes()).unwrap();
    assert_eq!(example.guessable(), Some(GuessableSecret::Placeholder));
}
