//! Tokens that are forged, altered, expired or issued for another audience.

use std::time::Duration;
use std::{fs, iter};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use belfry_tests::http::Http;
use belfry_tests::process::Belfry;
use belfry_tests::raw_socket::RawSocket;
use belfry_tests::tokens::{Key, jwks};
use belfry_tests::wait::until_true;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::Target;
use crate::setup::{SECRET, Setup, key, ready};

on_both_setups!(bad_tokens_of_a_shared_secret_are_rejected);

const HOUR: Duration = Duration::from_hours(1);

/// How many tokens are sent at a time.
const AT_A_TIME: usize = 16;

const HS256: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

/// Sends each token by REST and by Socket.IO. Each row has the attempt, its token and the expected error code.
///
/// Several tokens are sent at a time, because it takes a moment until the server closes a rejected transport.
async fn assert_rejected(
    url: &str,
    rows: impl IntoIterator<Item = (&'static str, String, &'static str)>,
) {
    let rows = stream::iter(rows);
    rows.for_each_concurrent(AT_A_TIME, async |(attempt, token, code)| {
        let answer = Http::new(url).bearer(&*token).get("/v1/notifications").await;
        assert_eq!(answer.expect(401)["code"], code, "{attempt}: {answer:#?}");
        assert!(answer.header("www-authenticate").is_some(), "{attempt}: {answer:#?}");

        let mut socket = RawSocket::open(url).await;
        socket.send(&format!("40{}", json!({ "token": token }))).await;
        let frame = socket.frame().await.unwrap_or_default();
        let error: Value =
            serde_json::from_str(frame.strip_prefix("44").unwrap_or_default()).unwrap();
        assert_eq!(error["message"], code, "{attempt}: {frame}");
        assert_eq!(socket.frame().await, None, "{attempt}: the transport is closed");
    })
    .await;
}

fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Replaces the header of the token; the signature stays the same.
fn with_header(token: &str, header: &str) -> String {
    let (_, claims_and_signature) = token.split_once('.').unwrap();
    format!("{}.{claims_and_signature}", base64url(header))
}

async fn bad_tokens_of_a_shared_secret_are_rejected(setup: Setup) {
    let target = Target::shared(setup).await;
    let ours = key();
    let theirs = Key::hs256("the secret of another issuer, as long as ours");
    let victim = target.victim.id();
    let token = || ours.token(victim);
    let good = token().sign();
    let (unsigned, signature) = good.rsplit_once('.').unwrap();
    let claims = token().claims().to_string();
    let with_claims = |claims: &str| ours.sign_bytes(HS256, claims);
    let with_user = |sub: Value| token().claim("sub", sub).sign();
    // In the year 2096.
    let far_future = 4_000_000_000_u64;
    // A valid token that is built like the bad tokens below is accepted.
    let control = with_claims(&format!(r#"{{"sub":"{victim}","exp":4000000000}}"#));
    Http::new(target.url()).bearer(control).get("/v1/notifications").await.expect(200);
    let invalid = "token_invalid";
    assert_rejected(
        target.url(),
        [
            ("signed with another secret", theirs.token(victim).sign(), invalid),
            ("signed with the empty secret", Key::hs256("").token(victim).sign(), invalid),
            ("the user replaced", ours.token("eve").forge(victim), invalid),
            ("an empty signature", format!("{unsigned}."), invalid),
            ("no signature part", unsigned.to_owned(), invalid),
            ("half a signature", good[..good.len() - signature.len() / 2].to_owned(), invalid),
            ("two signatures", format!("{good}.{signature}"), invalid),
            ("a signature in another alphabet", format!("{unsigned}.++//{signature}"), invalid),
            ("a signature with padding", format!("{good}="), invalid),
            ("no algorithm", token().unsigned(), invalid),
            ("no algorithm, signed", with_header(&good, r#"{"alg":"none"}"#), invalid),
            ("no algorithm, in mixed case", with_header(&good, r#"{"alg":"nOnE"}"#), invalid),
            (
                "an algorithm that is not accepted",
                with_header(&good, r#"{"alg":"HS512"}"#),
                invalid,
            ),
            ("an algorithm that is a list", with_header(&good, r#"{"alg":["HS256"]}"#), invalid),
            ("no header", format!(".{}.{signature}", base64url(&claims)), invalid),
            ("a header that is not JSON", with_header(&good, "HS256"), invalid),
            (
                "critical extensions",
                ours.sign_bytes(r#"{"alg":"HS256","crit":["b64"],"b64":false}"#, &claims),
                invalid,
            ),
            ("expired", token().expired_for(HOUR).sign(), "token_expired"),
            ("expired before 1970", token().claim("exp", -1).sign(), "token_expired"),
            ("forged and expired", theirs.token(victim).expired_for(HOUR).sign(), invalid),
            ("no expiry", token().claim("exp", Value::Null).sign(), invalid),
            ("an expiry that is a string", token().claim("exp", "4000000000").sign(), invalid),
            (
                "an expiry that is NaN",
                with_claims(&format!(r#"{{"sub":"{victim}","exp":NaN}}"#)),
                invalid,
            ),
            ("not valid yet", token().claim("nbf", far_future).sign(), invalid),
            ("a start that is a string", token().claim("nbf", "0").sign(), invalid),
            ("issued in the future", token().claim("iat", far_future).sign(), invalid),
            ("no user", token().claim("sub", Value::Null).sign(), invalid),
            ("a user that is a list", with_user(json!([victim])), invalid),
            ("a user that is an object", with_user(json!({ "id": victim })), invalid),
            ("a user that is a fraction", with_user(json!(4.2)), invalid),
            ("a user that is true", with_user(json!(true)), invalid),
            ("an empty user", with_user(json!("")), invalid),
            ("a user with a space", with_user(json!(format!("{victim} "))), invalid),
            ("a user with a line end", with_user(json!(format!("{victim}\n"))), invalid),
            ("a user with a zero byte", with_user(json!(format!("{victim}\0"))), invalid),
            (
                "a user with an invisible character",
                with_user(json!(format!("{victim}\u{200b}"))),
                invalid,
            ),
            ("a user of 4 kB", with_user(json!("u".repeat(4_000))), invalid),
            ("claims that are a list", with_claims(&format!("[{claims}]")), invalid),
            ("claims that are null", with_claims("null"), invalid),
            ("deeply nested claims", with_claims(&"[".repeat(4_000)), invalid),
            ("claims that are not UTF-8", ours.sign_bytes(HS256, b"{\"sub\":\"\xff\"}"), invalid),
            (
                "two users",
                with_claims(&format!(r#"{{"sub":"eve","sub":"{victim}","exp":4000000000}}"#)),
                invalid,
            ),
            (
                "two expiries",
                with_claims(&format!(r#"{{"sub":"{victim}","exp":1,"exp":4000000000}}"#)),
                invalid,
            ),
            ("two objects as claims", with_claims(&format!("{claims}{claims}")), invalid),
            (
                "a token of more than 8 KiB",
                token().claim("padding", "x".repeat(9_000)).sign(),
                invalid,
            ),
        ],
    )
    .await;
    let mut socket = RawSocket::open(target.url()).await;
    socket.send(&format!("40{}", json!({ "token": "x".repeat(1_000_000) }))).await;
    assert_eq!(socket.frame().await, None, "1 MB is over the limit of a frame");
    target.assert_unharmed().await;
}

/// The server has public keys in a JWKS, an issuer and an audience. One key is withdrawn at runtime.
#[tokio::test]
async fn bad_tokens_of_public_keys_are_rejected() {
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
    let is_accepted = async |token: &str| {
        Http::new(&*url).bearer(token).get("/v1/notifications").await.status == 200
    };
    let claims_of = |key: &Key| -> Value {
        key.token("victim").issuer("https://id.example.org/").audience("belfry").claims()
    };
    let signed_by =
        |key: &Key, header: &Value| key.sign_bytes(header.to_string(), claims_of(key).to_string());
    let rsa_header = json!({ "alg": "RS256", "kid": "k1" });
    let p256_header = json!({ "alg": "ES256", "kid": "k2" });
    let withdrawn = signed_by(&old, &json!({ "alg": "EdDSA", "kid": "old" }));
    for good in [&signed_by(&rsa, &rsa_header), &signed_by(&p256, &p256_header), &withdrawn] {
        assert!(is_accepted(good).await, "{good}");
    }
    fs::write(&file, jwks([&rsa, &p256]).to_string()).unwrap();
    until_true("the key is withdrawn", async || !is_accepted(&withdrawn).await).await;

    let (unknown_rsa, unknown_p256) = (Key::rs256(), Key::es256());
    let claims = claims_of(&rsa).to_string();
    let confused = |secret: &str, kid: &Value| {
        let header = json!({ "alg": "HS256", "kid": kid }).to_string();
        Key::hs256(secret).sign_bytes(header, &claims)
    };
    let with_kid = |kid: &str| signed_by(&unknown_rsa, &json!({ "alg": "RS256", "kid": kid }));
    let with_header_key = |name: &str, value: Value| {
        signed_by(&unknown_rsa, &json!({ "alg": "RS256", "kid": "k1", name: value }))
    };
    let with_claim = |name: &str, value: Value| {
        let token = rsa.token("victim").issuer("https://id.example.org/").audience("belfry");
        rsa.sign_bytes(rsa_header.to_string(), token.claim(name, value).claims().to_string())
    };
    // An ECDSA signature of r = s = 0 verifies any message if the library does not check for zero.
    let zeros = format!(
        "{}.{}.{}",
        base64url(p256_header.to_string()),
        base64url(&claims),
        base64url([0; 64])
    );
    let invalid = "token_invalid";
    assert_rejected(
        &url,
        [
            ("a withdrawn key", withdrawn, invalid),
            ("the public PEM as an HMAC secret", confused(rsa.public_pem(), &json!("k1")), invalid),
            (
                "the public PEM as an HMAC secret, without a key id",
                confused(rsa.public_pem(), &Value::Null),
                invalid,
            ),
            ("the other PEM as an HMAC secret", confused(p256.public_pem(), &json!("k2")), invalid),
            ("the JWK as an HMAC secret", confused(&rsa.jwk().to_string(), &json!("k1")), invalid),
            ("the key id as an HMAC secret", confused("k1", &json!("k1")), invalid),
            ("an unknown key with a known id", with_kid("k1"), invalid),
            (
                "the RSA key with the id of the P-256 key",
                signed_by(&rsa, &json!({ "alg": "RS256", "kid": "k2" })),
                invalid,
            ),
            (
                "the P-256 key with the id of the RSA key",
                signed_by(&p256, &json!({ "alg": "ES256", "kid": "k1" })),
                invalid,
            ),
            ("an unknown key id", with_kid("k3"), invalid),
            ("a key id that is a path", with_kid("../../../dev/null"), invalid),
            ("a key id that is SQL", with_kid("k1' UNION SELECT 'x"), invalid),
            ("a key id of 4 kB", with_kid(&"k".repeat(4_000)), invalid),
            (
                "a key id that is a number",
                signed_by(&unknown_rsa, &json!({ "alg": "RS256", "kid": 1 })),
                invalid,
            ),
            ("a key in the header", with_header_key("jwk", unknown_rsa.jwk()), invalid),
            (
                "a JWKS URL in the header",
                with_header_key("jku", json!("http://127.0.0.1:1/keys")),
                invalid,
            ),
            (
                "a certificate URL in the header",
                with_header_key("x5u", json!("http://127.0.0.1:1/c")),
                invalid,
            ),
            (
                "a certificate in the header",
                with_header_key("x5c", json!([unknown_rsa.public_pem()])),
                invalid,
            ),
            (
                "another algorithm of the key type",
                signed_by(&rsa, &json!({ "alg": "PS256", "kid": "k1" })),
                invalid,
            ),
            (
                "another hash length",
                signed_by(&rsa, &json!({ "alg": "RS512", "kid": "k1" })),
                invalid,
            ),
            ("an ECDSA signature of zeros", zeros, invalid),
            (
                "an unknown P-256 key with a known id",
                signed_by(&unknown_p256, &p256_header),
                invalid,
            ),
            ("another issuer", with_claim("iss", json!("https://id.example.com/")), invalid),
            (
                "our issuer without the slash",
                with_claim("iss", json!("https://id.example.org")),
                invalid,
            ),
            ("a list of issuers", with_claim("iss", json!(["https://id.example.org/"])), invalid),
            ("no issuer", with_claim("iss", Value::Null), invalid),
            ("another audience", with_claim("aud", json!("shop")), invalid),
            ("other audiences", with_claim("aud", json!(["shop", "belfry2", 7])), invalid),
            (
                "an audience that is an object",
                with_claim("aud", json!({ "belfry": true })),
                invalid,
            ),
            ("no audience", with_claim("aud", Value::Null), invalid),
        ],
    )
    .await;
    let good = signed_by(&rsa, &rsa_header);
    let page = belfry.http().bearer(&*good).get("/v1/notifications").await.expect(200);
    assert_eq!(page["items"], json!([]));
    assert!(!belfry.log().contains("panicked"));
}

/// Malformed `Authorization` headers, and tokens where Belfry does not read them.
#[tokio::test]
async fn token_in_the_wrong_place_is_rejected() {
    let target = Target::shared(Setup::Embedded).await;
    let good = target.victim.token();
    for (attempt, value, code) in [
        ("another scheme", format!("Basic {good}"), "token_invalid"),
        ("the scheme twice", format!("Bearer Bearer {good}"), "token_invalid"),
        ("two tokens", format!("Bearer {good}, Bearer {good}"), "token_invalid"),
        ("text after the token", format!("Bearer {good} x"), "token_invalid"),
        ("the scheme alone", "Bearer".to_owned(), "token_missing"),
        ("the scheme and a space", "Bearer ".to_owned(), "token_missing"),
        ("an empty value", String::new(), "token_missing"),
    ] {
        let request = Http::new(target.url()).request(reqwest::Method::GET, "/v1/notifications");
        let answer = belfry_tests::http::send(request.header("authorization", value)).await;
        assert_eq!(answer.expect(401)["code"], code, "{attempt}");
    }
    for query in ["token", "access_token", "auth", "authorization"] {
        let path = format!("/v1/notifications?{query}={good}");
        let answer = Http::new(target.url()).get(&path).await;
        assert_eq!(answer.expect(401)["code"], "token_missing", "{query}");
        let query = format!("&{query}={good}");
        let mut socket = RawSocket::upgrade(target.url(), &query).await.unwrap();
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
        let mut socket = RawSocket::open(target.url()).await;
        socket.send(&format!("40{auth}")).await;
        let frame = socket.frame().await;
        assert!(
            frame.is_none() || frame.as_deref() == Some(r#"44{"message":"token_missing"}"#),
            "{auth}: {frame:?}"
        );
    }
    target.assert_unharmed().await;
}
