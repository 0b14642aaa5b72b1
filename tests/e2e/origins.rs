//! Web pages and apps of other origins: CORS responses, and the origins that may open a WebSocket.

use belfry_tests::http::send;
use belfry_tests::process::Builder;
use belfry_tests::raw_http::exchange;
use reqwest::Method;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{self};

use crate::setup::Setup;

const APP: &str = "https://app.example.org";

/// The response to the preflight request of a page of this origin, in lower case.
async fn preflight(url: &str, path: &str, origin: &str) -> String {
    let request = format!(
        "OPTIONS {path} HTTP/1.1\r\nhost: belfry.example.org\r\nconnection: close\r\n\
         origin: {origin}\r\naccess-control-request-method: POST\r\n\
         access-control-request-headers: authorization,sentry-trace,x-tenant\r\n\r\n"
    );
    exchange(url, request).await.to_lowercase()
}

#[tokio::test]
async fn preflight_allows_credentials_and_headers_to_allowed_origins_only() {
    let with_cors = |it: Builder| {
        it.setting("http.cors_origins", format!("{APP}:443, https://*.preview.example.org"))
            .setting("http.cors_credentials", true)
            .setting("http.cors_headers", "X-Tenant")
    };
    let deployment = Setup::Embedded.own_with(with_cors).await;
    for path in ["/socket.io/?EIO=4&transport=polling", "/v1/notifications"] {
        for origin in [APP, "https://pr-7.preview.example.org"] {
            let answer = preflight(deployment.belfry.url(), path, origin).await;
            for header in [
                "http/1.1 200 ".to_owned(),
                format!("access-control-allow-origin: {origin}\r\n"),
                "access-control-allow-credentials: true\r\n".to_owned(),
            ] {
                assert!(answer.contains(&header), "{path}: no {header:?} in {answer}");
            }
            let allowed = answer.split("access-control-allow-headers: ").nth(1).unwrap();
            let allowed: Vec<_> = allowed.lines().next().unwrap().split(',').collect();
            for header in ["authorization", "sentry-trace", "baggage", "x-tenant"] {
                assert!(allowed.contains(&header), "{path}: no {header} in {allowed:?}");
            }
        }
        for origin in ["https://evil.example.org", "https://preview.example.org", "null"] {
            let answer = preflight(deployment.belfry.url(), path, origin).await;
            assert!(!answer.contains("access-control-allow-origin"), "{path}: {answer}");
            assert!(!answer.contains("access-control-allow-credentials"), "{path}: {answer}");
        }
    }
}

#[tokio::test]
async fn app_of_an_allowed_custom_scheme_opens_a_websocket() {
    let deployment = Setup::Embedded
        .own_with(|it| it.setting("http.cors_origins", "capacitor://localhost, tauri://localhost"))
        .await;
    let address = deployment.belfry.url().strip_prefix("http://").unwrap();
    for (origin, is_allowed) in [
        ("capacitor://localhost", true),
        ("tauri://localhost", true),
        ("ionic://localhost", false),
        ("http://localhost", false),
    ] {
        let url = format!("ws://{address}/socket.io/?EIO=4&transport=websocket");
        let mut request = url.into_client_request().unwrap();
        request.headers_mut().insert("origin", origin.parse().unwrap());
        match tokio_tungstenite::connect_async(request).await {
            Ok(_) => assert!(is_allowed, "{origin}"),
            Err(tungstenite::Error::Http(answer)) => {
                assert_eq!((answer.status().as_u16(), is_allowed), (403, false), "{origin}");
            }
            Err(error) => panic!("{origin}: {error}"),
        }
    }
}

#[tokio::test]
async fn rejected_page_gets_a_hint_and_one_log_line_names_its_origin() {
    let deployment = Setup::Embedded.own().await;
    let http = deployment.belfry.http();
    for _ in 0..3 {
        let request = http.request(Method::GET, "/socket.io/?EIO=4&transport=polling");
        let answer = send(request.header("origin", APP)).await;
        assert!(answer.expect(403)["hint"].as_str().unwrap().contains("http.cors_origins"));
    }
    let line = deployment.belfry.log_line("origin is not in http.cors_origins").await;
    assert!(line.contains("INFO") && line.contains(APP), "{line}");
    assert_eq!(deployment.belfry.log().matches("is not in http.cors_origins").count(), 1);
}

#[tokio::test]
async fn asterisk_allows_any_page_without_credentials_and_is_logged() {
    let deployment = Setup::Embedded.own_with(|it| it.setting("http.cors_origins", "*")).await;
    deployment.belfry.log_line("pages of any origin may connect").await;
    for origin in [APP, "null", "http://localhost:5173"] {
        let url = deployment.belfry.url();
        let answer = preflight(url, "/socket.io/?EIO=4&transport=polling", origin).await;
        assert!(answer.contains(&format!("access-control-allow-origin: {origin}\r\n")), "{answer}");
        assert!(!answer.contains("access-control-allow-credentials"), "{answer}");
    }
    let ada = deployment.user("ada");
    ada.node().header("origin", "https://anywhere.example.org").connect().await;
}
