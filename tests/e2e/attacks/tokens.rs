//! Tokens that were forged, altered, outlived or meant for somebody else.

use std::sync::Arc;
use std::time::Duration;
use std::{fs, iter};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use belfry_tests::http::Http;
use belfry_tests::process::Belfry;
use belfry_tests::raw_socket::RawSocket;
use belfry_tests::tokens::{Key, jwks};
use belfry_tests::wait::until_true;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::Scene;
use crate::setup::{Backends, Deployment, SECRET, Setup, key, ready};

on_both_setups!(tokens_of_a_shared_secret);

const HOUR: Duration = Duration::from_hours(1);
const HS256: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

struct Row(&'static str, String, &'static str);

/// Shows each token at both doors.
async fn are_refused(url: &str, rows: impl IntoIterator<Item = Row>) {
    for Row(attack, token, code) in rows {
        let answer = Http::new(url).bearer(&*token).get("/v1/notifications").await;
        assert_eq!(answer.expect(401)["code"], code, "{attack}: {answer:#?}");
        assert!(answer.header("www-authenticate").is_some(), "{attack}: {answer:#?}");

        let mut socket = RawSocket::open(url).await;
        socket.send(&format!("40{}", json!({ "token": token }))).await;
        let told = socket.frame().await.unwrap_or_default();
        assert_eq!(told, format!("44{}", json!({ "message": code })), "{attack}");
        assert_eq!(socket.frame().await, None, "{attack}: the transport is closed");
    }
}

fn part(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The token with another header, and the signature as it was.
fn with_header(token: &str, header: &str) -> String {
    let (_, rest) = token.split_once('.').unwrap();
    format!("{}.{rest}", part(header))
}

async fn tokens_of_a_shared_secret(setup: Setup) {
    let scene = Scene::shared(setup).await;
    let ours = key();
    let theirs = Key::hs256("a secret of somebody else, as long as ours");
    let victim = scene.victim.id();
    let token = || ours.token(victim);
    let good = token().sign();
    let (unsigned, signature) = good.rsplit_once('.').unwrap();
    let claims = token().claims().to_string();
    let says = |claims: &str| ours.sign_bytes(HS256, claims);
    let expiring = |sub: Value| token().claim("sub", sub).sign();
    let far = 4_000_000_000_u64;
    // Written by hand like some of those below, and nothing wrong with it.
    let control = says(&format!(r#"{{"sub":"{victim}","exp":4000000000}}"#));
    Http::new(scene.url()).bearer(control).get("/v1/notifications").await.expect(200);
    let invalid = "token_invalid";
    are_refused(
        scene.url(),
        [
            Row("signed with another secret", theirs.token(victim).sign(), invalid),
            Row("signed with the empty secret", Key::hs256("").token(victim).sign(), invalid),
            Row("another user put in", ours.token("eve").forge(victim), invalid),
            Row("the signature cut off", format!("{unsigned}."), invalid),
            Row("the signature and its dot cut off", unsigned.to_owned(), invalid),
            Row("half a signature", good[..good.len() - signature.len() / 2].to_owned(), invalid),
            Row("two signatures", format!("{good}.{signature}"), invalid),
            Row("a signature in another alphabet", format!("{unsigned}.++//{signature}"), invalid),
            Row("a signature with padding", format!("{good}="), invalid),
            Row("no algorithm", token().unsigned(), invalid),
            Row("no algorithm, signed", with_header(&good, r#"{"alg":"none"}"#), invalid),
            Row("no algorithm in odd letters", with_header(&good, r#"{"alg":"nOnE"}"#), invalid),
            Row(
                "an algorithm that is not accepted",
                with_header(&good, r#"{"alg":"HS512"}"#),
                invalid,
            ),
            Row(
                "an algorithm that is no text",
                with_header(&good, r#"{"alg":["HS256"]}"#),
                invalid,
            ),
            Row("no header", format!(".{}.{signature}", part(&claims)), invalid),
            Row("a header that is no JSON", with_header(&good, "HS256"), invalid),
            Row(
                "extensions that must be understood",
                ours.sign_bytes(r#"{"alg":"HS256","crit":["b64"],"b64":false}"#, &claims),
                invalid,
            ),
            Row("expired", token().expired_for(HOUR).sign(), "token_expired"),
            Row("expired before time began", token().claim("exp", -1).sign(), "token_expired"),
            Row("forged and expired", theirs.token(victim).expired_for(HOUR).sign(), invalid),
            Row("without an end", token().claim("exp", Value::Null).sign(), invalid),
            Row("an end that is a text", token().claim("exp", "4000000000").sign(), invalid),
            Row(
                "an end that is no number",
                says(&format!(r#"{{"sub":"{victim}","exp":NaN}}"#)),
                invalid,
            ),
            Row("not valid yet", token().claim("nbf", far).sign(), invalid),
            Row("a start that is a text", token().claim("nbf", "0").sign(), invalid),
            Row("issued in the future", token().claim("iat", far).sign(), invalid),
            Row("no user", token().claim("sub", Value::Null).sign(), invalid),
            Row("a user that is a list", expiring(json!([victim])), invalid),
            Row("a user that is an object", expiring(json!({ "id": victim })), invalid),
            Row("a user that is a fraction", expiring(json!(4.2)), invalid),
            Row("a user that is true", expiring(json!(true)), invalid),
            Row("a user that is nobody", expiring(json!("")), invalid),
            Row("a user with a space", expiring(json!(format!("{victim} "))), invalid),
            Row("a user with a line end", expiring(json!(format!("{victim}\n"))), invalid),
            Row("a user with a zero byte", expiring(json!(format!("{victim}\0"))), invalid),
            Row(
                "a user with an invisible character",
                expiring(json!(format!("{victim}\u{200b}"))),
                invalid,
            ),
            Row("a user of 4 kB", expiring(json!("u".repeat(4_000))), invalid),
            Row("claims that are a list", says(&format!("[{claims}]")), invalid),
            Row("claims that are null", says("null"), invalid),
            Row("claims nested without end", says(&"[".repeat(4_000)), invalid),
            Row(
                "claims that are not UTF-8",
                ours.sign_bytes(HS256, b"{\"sub\":\"\xff\"}"),
                invalid,
            ),
            Row(
                "two users",
                says(&format!(r#"{{"sub":"eve","sub":"{victim}","exp":4000000000}}"#)),
                invalid,
            ),
            Row(
                "two ends",
                says(&format!(r#"{{"sub":"{victim}","exp":1,"exp":4000000000}}"#)),
                invalid,
            ),
            Row("two objects", says(&format!("{claims}{claims}")), invalid),
            Row("more than 8 KiB", token().claim("padding", "x".repeat(9_000)).sign(), invalid),
        ],
    )
    .await;
    let mut socket = RawSocket::open(scene.url()).await;
    socket.send(&format!("40{}", json!({ "token": "x".repeat(1_000_000) }))).await;
    assert_eq!(socket.frame().await, None, "1 MB is more than any frame may have");
    scene.stands_unharmed().await;
}

/// Public keys in a JWKS, an issuer and an audience; one key is withdrawn while it runs.
#[tokio::test]
async fn tokens_of_public_keys() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("jwks.json");
    let (rsa, p256, old) =
        (Key::rs256().named("k1"), Key::es256().named("k2"), Key::eddsa().named("old"));
    fs::write(&file, jwks([&rsa, &p256, &old]).to_string()).unwrap();
    let belfry = Belfry::builder()
        .setting("auth.jwks_file", file.display())
        .setting("auth.hs256_secret", SECRET)
        .setting("auth.issuer", "https://id.example.org/")
        .setting("auth.audience", "belfry");
    let belfry = ready(belfry.start().await).await;
    let url = belfry.url().to_owned();
    let opens = async |token: &str| {
        Http::new(&*url).bearer(token).get("/v1/notifications").await.status == 200
    };
    let of = |key: &Key| -> Value {
        key.token("victim").issuer("https://id.example.org/").audience("belfry").claims()
    };
    let ours = |key: &Key, header: &Value| key.sign_bytes(header.to_string(), of(key).to_string());
    let (k1, k2) = (json!({ "alg": "RS256", "kid": "k1" }), json!({ "alg": "ES256", "kid": "k2" }));
    let withdrawn = ours(&old, &json!({ "alg": "EdDSA", "kid": "old" }));
    for good in [&ours(&rsa, &k1), &ours(&p256, &k2), &withdrawn] {
        assert!(opens(good).await, "{good}");
    }
    fs::write(&file, jwks([&rsa, &p256]).to_string()).unwrap();
    until_true("the key is withdrawn", async || !opens(&withdrawn).await).await;

    let (stranger, forger) = (Key::rs256(), Key::es256());
    let claims = of(&rsa).to_string();
    let confused = |secret: &str, kid: &Value| {
        let header = json!({ "alg": "HS256", "kid": kid }).to_string();
        Key::hs256(secret).sign_bytes(header, &claims)
    };
    let names = |kid: &str| ours(&stranger, &json!({ "alg": "RS256", "kid": kid }));
    let brings = |name: &str, value: Value| {
        ours(&stranger, &json!({ "alg": "RS256", "kid": "k1", name: value }))
    };
    let not_for_us = |name: &str, value: Value| {
        let token = rsa.token("victim").issuer("https://id.example.org/").audience("belfry");
        rsa.sign_bytes(k1.to_string(), token.claim(name, value).claims().to_string())
    };
    // ECDSA of r = s = 0 verifies everything where a library forgets to check that.
    let zeros = format!("{}.{}.{}", part(k2.to_string()), part(&claims), part([0; 64]));
    let invalid = "token_invalid";
    are_refused(
        &url,
        [
            Row("a key that was withdrawn", withdrawn, invalid),
            Row("the public PEM as a secret", confused(rsa.public_pem(), &json!("k1")), invalid),
            Row("that without a key id", confused(rsa.public_pem(), &Value::Null), invalid),
            Row("the other PEM as a secret", confused(p256.public_pem(), &json!("k2")), invalid),
            Row("the JWK as a secret", confused(&rsa.jwk().to_string(), &json!("k1")), invalid),
            Row("the key id as a secret", confused("k1", &json!("k1")), invalid),
            Row("another key under a known id", names("k1"), invalid),
            Row(
                "the known ids swapped",
                ours(&rsa, &json!({ "alg": "RS256", "kid": "k2" })),
                invalid,
            ),
            Row(
                "and the other way round",
                ours(&p256, &json!({ "alg": "ES256", "kid": "k1" })),
                invalid,
            ),
            Row("an unknown key id", names("k3"), invalid),
            Row("a key id that is a path", names("../../../dev/null"), invalid),
            Row("a key id that is SQL", names("k1' UNION SELECT 'x"), invalid),
            Row("a key id of 4 kB", names(&"k".repeat(4_000)), invalid),
            Row(
                "a key id that is no text",
                ours(&stranger, &json!({ "alg": "RS256", "kid": 1 })),
                invalid,
            ),
            Row("a key that it brings", brings("jwk", stranger.jwk()), invalid),
            Row("an address of keys", brings("jku", json!("http://127.0.0.1:1/keys")), invalid),
            Row(
                "an address of certificates",
                brings("x5u", json!("http://127.0.0.1:1/c")),
                invalid,
            ),
            Row(
                "a certificate that it brings",
                brings("x5c", json!([stranger.public_pem()])),
                invalid,
            ),
            Row(
                "another family of algorithms",
                ours(&rsa, &json!({ "alg": "PS256", "kid": "k1" })),
                invalid,
            ),
            Row("a longer hash", ours(&rsa, &json!({ "alg": "RS512", "kid": "k1" })), invalid),
            Row("a curve's signature of zeros", zeros, invalid),
            Row("a curve's key of somebody else", ours(&forger, &k2), invalid),
            Row("of another issuer", not_for_us("iss", json!("https://id.example.com/")), invalid),
            Row(
                "of nearly our issuer",
                not_for_us("iss", json!("https://id.example.org")),
                invalid,
            ),
            Row(
                "of issuers in a list",
                not_for_us("iss", json!(["https://id.example.org/"])),
                invalid,
            ),
            Row("of no issuer", not_for_us("iss", Value::Null), invalid),
            Row("for another audience", not_for_us("aud", json!("shop")), invalid),
            Row("for others", not_for_us("aud", json!(["shop", "belfry2", 7])), invalid),
            Row(
                "for an audience in an object",
                not_for_us("aud", json!({ "belfry": true })),
                invalid,
            ),
            Row("for nobody", not_for_us("aud", Value::Null), invalid),
        ],
    )
    .await;
    let place = Deployment { belfry, backends: Backends { database: None, broker: None } };
    let good = ours(&rsa, &k1);
    let http = place.belfry.http().bearer(&*good);
    let page = http.get("/v1/notifications").await.expect(200);
    assert_eq!(page["items"], json!([]));
    assert!(!place.belfry.log().contains("panicked"));
    drop(Arc::new(place));
}

/// Where a token may stand, and what there is besides.
#[tokio::test]
async fn places_of_a_token() {
    let scene = Scene::shared(Setup::Embedded).await;
    let good = scene.victim.token();
    for (attack, value, code) in [
        ("another scheme", format!("Basic {good}"), "token_invalid"),
        ("the scheme twice", format!("Bearer Bearer {good}"), "token_invalid"),
        ("two tokens", format!("Bearer {good}, Bearer {good}"), "token_invalid"),
        ("something behind it", format!("Bearer {good} x"), "token_invalid"),
        ("the scheme alone", "Bearer".to_owned(), "token_missing"),
        ("the scheme and a space", "Bearer ".to_owned(), "token_missing"),
        ("nothing", String::new(), "token_missing"),
    ] {
        let request = Http::new(scene.url()).request(reqwest::Method::GET, "/v1/notifications");
        let answer = belfry_tests::http::send(request.header("authorization", value)).await;
        assert_eq!(answer.expect(401)["code"], code, "{attack}");
    }
    for query in ["token", "access_token", "auth", "authorization"] {
        let path = format!("/v1/notifications?{query}={good}");
        let answer = Http::new(scene.url()).get(&path).await;
        assert_eq!(answer.expect(401)["code"], "token_missing", "{query}");
        let query = format!("&{query}={good}");
        let mut socket = RawSocket::upgrade(scene.url(), &query).await.unwrap();
        assert!(socket.frame().await.unwrap().starts_with('0'));
        socket.send("40").await;
        assert_eq!(socket.frame().await.as_deref(), Some(r#"44{"message":"token_missing"}"#));
    }
    for auth in [
        json!({ "token": [good] }),
        json!({ "token": { "token": good } }),
        json!([good]),
        json!(good),
        json!({ "Token": good }),
    ]
    .into_iter()
    .chain(iter::once(Value::Null))
    {
        let mut socket = RawSocket::open(scene.url()).await;
        socket.send(&format!("40{auth}")).await;
        let told = socket.frame().await;
        assert!(
            told.is_none() || told.as_deref() == Some(r#"44{"message":"token_missing"}"#),
            "{auth}: {told:?}"
        );
    }
    scene.stands_unharmed().await;
}
