//! Listeners: TCP, TLS and Unix sockets, and the connections that they accept and refuse.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use belfry_tests::process::Belfry;
use belfry_tests::wait::{PATIENCE, until, until_true};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::{self, pki_types::CertificateDer};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{self, http::HeaderValue};

use crate::setup::{SECRET, Setup, User, ready, signed_in};

fn address(belfry: &Belfry) -> &str {
    belfry.url().split_once("://").unwrap().1
}

/// Sends a request and returns everything received until the connection ends.
async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // An error is ignored: the server may close the connection with a reset.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it ends");
    String::from_utf8(answer).unwrap()
}

/// A request with these header lines, after which the server closes the connection.
fn request(line: &str, headers: &str) -> String {
    format!("{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n")
}

async fn by_tcp(belfry: &Belfry, request: &str) -> String {
    exchange(TcpStream::connect(address(belfry)).await.unwrap(), request).await
}

#[tokio::test]
async fn incomplete_request_head_is_closed_and_others_are_served() {
    let deployment = Setup::Embedded.own_with(|it| it.setting("http.header_timeout", "1s")).await;
    let half = "GET /health/live HTTP/1.1\r\nhost:";
    let (one, other) =
        tokio::join!(by_tcp(&deployment.belfry, half), by_tcp(&deployment.belfry, ""));
    assert_eq!((one, other), (String::new(), String::new()));
    let ada = deployment.user("ada");
    let device = signed_in(ada.node()).await;
    deployment.until_delivered(&ada, [&device], "n1").await;
}

#[tokio::test]
async fn connections_per_address_are_limited_also_behind_a_proxy() {
    let limited =
        |it: belfry_tests::process::Builder| it.setting("limits.connections_per_address", 3);
    let direct = Setup::Embedded.own_with(limited).await;
    let behind_proxy = |it| limited(it).setting("http.trusted_proxies", "127.0.0.1");
    let proxied = Setup::Embedded.own_with(behind_proxy).await;
    // The address of a trusted proxy is not limited.
    for (deployment, are_refused) in [(&direct, true), (&proxied, false)] {
        let mut idle = Vec::new();
        for _ in 0..5 {
            idle.push(TcpStream::connect(address(&deployment.belfry)).await.unwrap());
        }
        let answer = by_tcp(&deployment.belfry, &request("GET /health/live", "")).await;
        assert_eq!(answer.is_empty(), are_refused, "{answer}");
    }
    let metric = "belfry_connections_refused_total{reason=\"connections_per_address\"}";
    let metrics = until("refusals are counted", async || {
        let text = by_tcp_at(direct.belfry.admin_url(), &request("GET /metrics", "")).await;
        text.contains(metric).then_some(text)
    });
    assert!(metrics.await.contains("belfry_connections_open"));
    direct.belfry.log_line("limits.connections_per_address").await;

    // Behind the proxy, three devices with one address are admitted and the fourth gets 503. A device with
    // another address is admitted.
    let websocket = async |client: &'static str| {
        let url = format!("ws://{}/socket.io/?EIO=4&transport=websocket", address(&proxied.belfry));
        let mut request = url.into_client_request().unwrap();
        request.headers_mut().insert("x-forwarded-for", HeaderValue::from_static(client));
        tokio_tungstenite::connect_async(request).await
    };
    let mut devices = Vec::new();
    for _ in 0..3 {
        devices.push(websocket("203.0.113.1").await.unwrap());
    }
    match websocket("203.0.113.1").await {
        Err(tungstenite::Error::Http(answer)) => assert_eq!(answer.status(), 503),
        other => panic!("{other:?}"),
    }
    let line = proxied.belfry.log_line("limits.connections_per_address").await;
    assert!(line.contains("203.0.113.1"), "{line}");
    websocket("203.0.113.2").await.unwrap();
    drop(devices);
    until_true("permits are free again", async || websocket("203.0.113.1").await.is_ok()).await;
}

async fn by_tcp_at(url: &str, request: &str) -> String {
    let address = url.split_once("://").unwrap().1;
    exchange(TcpStream::connect(address).await.unwrap(), request).await
}

#[tokio::test]
async fn pages_of_other_origins_are_rejected_and_apps_are_admitted() {
    let deployment = Setup::Embedded
        .own_with(|it| it.setting("http.cors_origins", "https://app.example.org"))
        .await;
    let own = deployment.belfry.url().to_owned();
    for (origin, status) in [
        (None, 200),
        (Some(own.as_str()), 200),
        (Some("https://app.example.org"), 200),
        (Some("https://evil.example.org"), 403),
        (Some("http://127.0.0.1:1"), 403),
        (Some("null"), 403),
    ] {
        let path = format!("{}/socket.io/?EIO=4&transport", address(&deployment.belfry));
        let mut websocket = format!("ws://{path}=websocket").into_client_request().unwrap();
        let mut header = String::new();
        if let Some(origin) = origin {
            header = format!("origin: {origin}\r\n");
            websocket.headers_mut().insert("origin", origin.parse().unwrap());
        }
        match tokio_tungstenite::connect_async(websocket).await {
            Ok(_) => assert_eq!(status, 200, "{origin:?}"),
            Err(tungstenite::Error::Http(answer)) => {
                assert_eq!(answer.status(), status, "{origin:?}");
            }
            Err(error) => panic!("{origin:?}: {error}"),
        }
        let polling = format!(
            "GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\
             {header}\r\n",
            address(&deployment.belfry)
        );
        let answer = by_tcp(&deployment.belfry, &polling).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{origin:?}: {answer}");
    }
    // The response to a preflight request depends only on `http.cors_origins`.
    let preflight = "origin: https://app.example.org\r\naccess-control-request-method: POST\r\n";
    let answer = by_tcp(&deployment.belfry, &request("OPTIONS /socket.io/", preflight)).await;
    assert!(answer.contains("access-control-allow-origin: https://app.example.org"), "{answer}");
}

#[tokio::test]
async fn responses_have_security_headers_and_pages_a_content_policy() {
    let belfry = ready(Belfry::builder().start().await).await;
    for path in ["/", "/web/app.js", "/health/live", "/v1/notifications", "/nowhere", "/socket.io/"]
    {
        let answer = by_tcp(&belfry, &request(&format!("GET {path}"), "")).await;
        for header in [
            "x-content-type-options: nosniff\r\n",
            "referrer-policy: no-referrer\r\n",
            "content-security-policy: default-src 'none'; ",
            "frame-ancestors 'none'\r\n",
        ] {
            assert_eq!(answer.matches(header).count(), 1, "{path}: {header} in {answer}");
        }
        assert_eq!(answer.contains("script-src 'self'"), path == "/" || path == "/web/app.js");
    }
}

/// Writes a new certificate and key of `localhost`, and returns the certificate.
fn new_certificate(folder: &Path) -> String {
    let generated = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("tls.key"), generated.signing_key.serialize_pem()).unwrap();
    std::fs::write(folder.join("tls.crt"), generated.cert.pem()).unwrap();
    generated.cert.pem()
}

/// The response over TLS to a client that trusts only this certificate.
async fn by_tls(address: &str, certificate: &str, request: &str) -> std::io::Result<String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()).unwrap();
    let provider = rustls::crypto::ring::default_provider();
    let config = rustls::ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TcpStream::connect(address).await?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    Ok(exchange(stream, request).await)
}

#[tokio::test]
async fn https_uses_a_renewed_certificate_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let old = new_certificate(folder.path());
    let builder = Belfry::builder()
        .setting("auth.hs256_secret", SECRET)
        .setting("http.tls.certificate_file", folder.path().join("tls.crt").display())
        .setting("http.tls.key_file", folder.path().join("tls.key").display());
    let belfry = builder.start().await;
    assert!(belfry.url().starts_with("https://"), "{}", belfry.url());
    let live = request("GET /health/live", "");
    let answer = by_tls(address(&belfry), &old, &live).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(!by_tcp(&belfry, &live).await.contains("HTTP/1.1"), "no response without TLS");

    let new = new_certificate(folder.path());
    until_true("the new certificate is used", async || {
        by_tls(address(&belfry), &new, &live).await.is_ok()
    })
    .await;
    assert!(by_tls(address(&belfry), &old, &live).await.is_err());
}

#[tokio::test]
async fn unix_socket_has_no_development_sign_in_and_its_file_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("belfry.sock");
    let on_socket = || {
        Belfry::builder()
            .setting("http.listen", format!("unix:{}", path.display()))
            .setting("admin.listen", "127.0.0.1:0")
    };
    // The socket file of a process that was killed.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let mut belfry = on_socket().start().await;
    assert_eq!(belfry.url(), format!("unix:{}", path.display()));
    let ask =
        async |request: &str| exchange(UnixStream::connect(&path).await.unwrap(), request).await;
    until_true("belfry is ready", async || {
        ask(&request("GET /health/ready", "")).await.starts_with("HTTP/1.1 200 ")
    })
    .await;
    let body = "{\"user\":\"ada\"}";
    let headers = format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
    let sign_in = request("POST /dev/token", &headers) + body;
    // There is no development sign-in on a Unix socket: its peer may be a proxy for remote clients.
    let answer = ask(&sign_in).await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    let token = belfry.run(&["token", "--user", "ada"]).await.out;
    let list =
        request("GET /v1/notifications", &format!("authorization: Bearer {}\r\n", token.trim()));
    let answer = ask(&list).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");

    let second = on_socket().finish().await;
    assert_eq!(second.status.code(), Some(1));
    assert!(
        second.err.contains("http.listen") && second.err.contains("belfry.sock"),
        "{}",
        second.err
    );

    assert_eq!(belfry.terminate().await.code(), Some(0));
    assert!(!path.exists());
}

#[tokio::test]
async fn admin_port_rejects_names_that_a_web_site_may_have() {
    let builder = Belfry::builder().setting("admin.hosts", "metrics.example.org");
    let belfry = ready(builder.start().await).await;
    for path in ["/metrics", "/debug/runtime", "/health/live"] {
        for (host, status) in [
            ("127.0.0.1:8081", 200),
            ("10.1.2.3:8081", 200),
            ("belfry:8081", 200),
            ("belfry.shop.svc.cluster.local:8081", 200),
            ("Metrics.example.org:8081", 200),
            ("evil.example.org:8081", 403),
            ("127.0.0.1.evil.example.org", 403),
            ("", 403),
        ] {
            let ask = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
            let answer = by_tcp_at(belfry.admin_url(), &ask).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path} {host}: {answer}");
        }
        let without_host = format!("GET {path} HTTP/1.0\r\n\r\n");
        let answer = by_tcp_at(belfry.admin_url(), &without_host).await;
        assert!(answer.contains(" 200 OK"), "{path}: {answer}");
    }
}

#[tokio::test]
async fn runtime_report_is_served_and_risky_settings_are_logged() {
    let deployment = Setup::Embedded.own().await;
    let ada: User = deployment.user("ada");
    let device = signed_in(ada.node()).await;
    let report: Value = deployment.belfry.admin_http().get("/debug/runtime").await.expect(200);
    assert_eq!(report["sessions"], 1, "{report}");
    assert!(report["connections"]["public"].as_u64().unwrap() >= 1, "{report}");
    assert!(report["connections"]["admin"].as_u64().unwrap() >= 1, "{report}");
    assert!(report["workers"].as_u64().unwrap() >= 1, "{report}");
    assert!(report["tasks"].as_u64().unwrap() > 3, "{report}");
    assert!(report["residentBytes"].as_u64().unwrap() > 1_000_000, "{report}");
    deployment.belfry.http().get("/debug/runtime").await.expect(404);
    assert!(!deployment.belfry.log().contains("not on loopback"), "no warning for loopback");
    drop(device);
    let limits = |it: belfry_tests::process::Builder| it.setting("limits.connections", u32::MAX);
    let crowded = Setup::Embedded.own_with(limits).await;
    crowded.belfry.log_line("connection limit lowered to the open file limit").await;

    let open = Setup::Embedded.own_with(|it| it.setting("admin.listen", "0.0.0.0:0")).await;
    timeout(Duration::from_secs(20), open.belfry.log_line("admin listener is not on loopback"))
        .await
        .unwrap();
}
