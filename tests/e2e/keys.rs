//! Keys that change while devices are connected, and keys that an identity provider publishes.

use std::fmt::Display;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use belfry_tests::clients::Device;
use belfry_tests::http::{Answer, Http};
use belfry_tests::process::{Belfry, Builder};
use belfry_tests::provider::Provider;
use belfry_tests::tokens::{Key, Token, jwks};
use belfry_tests::wait::until_true;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::setup::{ready, signed_in, until_ready};

const OLD: &str = "the old secret, which is long enough to be one";
const NEW: &str = "the new secret, which is long enough to be one";

/// The REST response to a request with this token.
async fn request_with(belfry: &Belfry, token: &Token<'_>) -> Answer {
    let http = belfry.http().bearer(token.sign());
    http.get("/v1/notifications/unread-count").await
}

async fn is_accepted(belfry: &Belfry, token: &Token<'_>) -> bool {
    request_with(belfry, token).await.status == 200
}

/// Checks that REST rejects the token with this status, and Socket.IO and REST with this code.
async fn assert_refused(belfry: &Belfry, token: &Token<'_>, status: u16, code: &str) {
    let answer = request_with(belfry, token).await;
    assert_eq!(answer.expect(status)["code"], code, "{answer:?}");
    let device = Device::node(belfry.url()).token(&token.sign()).start();
    assert_eq!(device.refused().await, code);
}

/// Checks that the token cannot be verified now: requests get 503, and devices continue to reconnect. Returns
/// the devices.
async fn assert_unavailable(belfry: &Belfry, token: &Token<'_>) -> [Device; 2] {
    let answer = request_with(belfry, token).await;
    assert_eq!(answer.expect(503)["code"], "unavailable", "{answer:?}");
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    let token = token.sign();
    let devices = [["websocket"], ["polling"]]
        .map(|by| Device::node(belfry.url()).transports(by).token(&token).start());
    for device in &devices {
        device.of_kind("engine_close").await;
    }
    devices
}

async fn until_all_connected(devices: &[Device]) {
    for device in devices {
        device.connected().await;
    }
}

/// Checks that the device receives a new notification, perhaps after others.
async fn assert_notified(device: &Device, service: &Http, title: &str) {
    let draft = json!({ "userId": "ada", "title": title });
    service.post("/v1/notifications", &draft).await.expect(201);
    while device.expect("notification:new").await["title"] != title {}
}

fn service(belfry: &Belfry, key: &Key) -> Http {
    belfry.http().bearer(key.token("shop").scope("notifications:write").sign())
}

/// A `belfry` that fetches the keys of this provider.
fn fetching(provider: &Provider, settings: &[(&str, &dyn Display)]) -> Builder {
    let builder = Belfry::builder().setting("auth.jwks_url", provider.url());
    settings.iter().fold(builder, |builder, (path, value)| builder.setting(path, value))
}

/// Waits until readiness reports this state of the keys.
async fn until_keys_are(belfry: &Belfry, state: &str) {
    until_true(&format!("the keys are {state}"), async || {
        let ready = belfry.http().get("/health/ready").await;
        ready.json()["checks"]["keys"] == state && (ready.status == 200) == (state == "up")
    })
    .await;
}

/// Waits until the device is disconnected because its key is withdrawn.
async fn assert_ended(device: &Device) {
    assert_eq!(device.expect("exception").await["code"], "key_withdrawn");
    device.disconnected().await;
}

fn assert_never_disconnected(device: &Device) {
    assert!(
        device.records().iter().all(|record| record.kind != "disconnect"),
        "{}",
        device.transcript()
    );
}

#[tokio::test]
async fn secrets_public_keys_and_a_jwks_are_accepted_side_by_side() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (rsa, p256, ed25519, jwks_key) =
        (Key::rs256(), Key::es256(), Key::eddsa(), Key::rs256().named("k1"));
    let (old, new) = (Key::hs256(OLD), Key::hs256(NEW));
    fs::write(path("old"), format!("{OLD}\n")).unwrap();
    fs::write(path("two.pem"), format!("{}{}", rsa.public_pem(), p256.public_pem())).unwrap();
    fs::write(path("one.pem"), ed25519.public_pem()).unwrap();
    fs::write(path("jwks.json"), jwks([&jwks_key]).to_string()).unwrap();
    let files = [path("two.pem"), path("one.pem")].map(|file| file.display().to_string());
    let belfry = Belfry::builder()
        .setting("auth.hs256_secret", NEW)
        .setting("auth.hs256_secret_files", path("old").display())
        .setting("auth.public_key_file", files.join(","))
        .setting("auth.jwks_file", path("jwks.json").display());
    let belfry = ready(belfry.start().await).await;

    for key in [&old, &new, &rsa, &p256, &ed25519, &jwks_key] {
        let device = signed_in(Device::node(belfry.url()).token(&key.token("ada").sign())).await;
        assert_notified(&device, &service(&belfry, key), "Hello").await;
    }
    // The text of a public key must not work as a shared secret.
    for key in [&rsa, &p256, &ed25519, &jwks_key] {
        for bad in [key.token("ada").confused(), key.token("ada").unsigned()] {
            let answer = belfry.http().bearer(bad).get("/v1/notifications").await;
            assert_eq!(answer.expect(401)["code"], "token_invalid");
        }
    }
    for unknown in [Key::hs256("not one of the keys"), Key::rs256(), Key::es256().named("k1")] {
        assert_refused(&belfry, &unknown.token("ada"), 401, "token_invalid").await;
    }
    // `belfry token` signs with the secret of the settings.
    let minted = belfry.run(&["token", "--user", "ada"]).await;
    let http = Http::new(belfry.url()).bearer(minted.out.trim());
    http.get("/v1/notifications").await.expect(200);
}

#[tokio::test]
async fn changed_secret_file_is_applied_and_ends_the_sessions_of_the_old_secret() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("secret");
    let (old, new) = (Key::hs256(OLD), Key::hs256(NEW));
    fs::write(&file, OLD).unwrap();
    let builder = Belfry::builder().setting("auth.hs256_secret_files", file.display());
    let mut belfry = ready(builder.start().await).await;
    let device = signed_in(Device::node(belfry.url()).token(&old.token("ada").sign())).await;
    assert_refused(&belfry, &new.token("ada"), 401, "token_invalid").await;

    fs::write(&file, NEW).unwrap();
    let renewed = new.token("ada");
    until_true("the new secret is accepted", async || is_accepted(&belfry, &renewed).await).await;
    assert_refused(&belfry, &old.token("ada"), 401, "token_invalid").await;
    assert_ended(&device).await;
    let device = signed_in(Device::node(belfry.url()).token(&renewed.sign())).await;
    assert_notified(&device, &service(&belfry, &new), "After the change").await;

    // An unusable file changes nothing. It is read again and again, but logged only once.
    fs::write(&file, "").unwrap();
    let warning = "keeping the old keys";
    belfry.log_line(warning).await;
    sleep(Duration::from_secs(6)).await;
    assert_eq!(belfry.log().matches(warning).count(), 1, "{}", belfry.log());
    assert_notified(&device, &service(&belfry, &new), "After the mistake").await;

    assert_never_disconnected(&device);

    // On SIGHUP the file is read at once. Each SIGHUP is logged, even if nothing has changed.
    fs::write(&file, OLD).unwrap();
    belfry.send_sighup();
    let with_old = old.token("ada");
    until_true("the old secret is accepted again", async || is_accepted(&belfry, &with_old).await)
        .await;
    assert_ended(&device).await;
    let device = signed_in(Device::node(belfry.url()).token(&with_old.sign())).await;
    let reloads = |belfry: &Belfry| belfry.log().matches("token keys reloaded").count();
    let before = reloads(&belfry);
    belfry.send_sighup();
    until_true("the file is read again", async || reloads(&belfry) > before).await;
    assert_notified(&device, &service(&belfry, &old), "After the signal").await;
    assert_never_disconnected(&device);
    assert!(![OLD, NEW].iter().any(|secret| belfry.log().contains(secret)), "a secret in the log");
}

#[tokio::test]
async fn new_key_of_a_provider_is_fetched_when_a_token_names_it() {
    let [old, new] = ["2025", "2026"].map(|name| Key::rs256().named(name));
    let provider = Provider::start(&[&old]).await;
    let settings: [(&str, &dyn Display); 2] =
        [("auth.jwks_refresh", &"1h"), ("auth.jwks_cooldown", &"1s")];
    let belfry = ready(fetching(&provider, &settings).start().await).await;
    let device = signed_in(Device::node(belfry.url()).token(&old.token("ada").sign())).await;
    for _ in 0..20 {
        assert!(is_accepted(&belfry, &old.token("ada")).await);
    }
    assert_eq!(provider.fetches(), 1, "a known key causes no request");

    sleep(Duration::from_secs(1)).await;
    provider.publish(&[&old, &new]);
    let other = signed_in(Device::node(belfry.url()).token(&new.token("ada").sign())).await;
    assert_eq!(provider.fetches(), 2);
    assert_notified(&other, &service(&belfry, &old), "Both are good").await;

    // The old key is withdrawn: its sessions end, and new connects with it are rejected.
    sleep(Duration::from_secs(1)).await;
    provider.publish(&[&new]);
    assert_refused(&belfry, &Key::rs256().named("x").token("ada"), 401, "token_invalid").await;
    assert_refused(&belfry, &old.token("ada"), 401, "token_invalid").await;
    assert_ended(&device).await;
    assert_notified(&other, &service(&belfry, &new), "Only one is good").await;
    assert_never_disconnected(&other);

    // The new key is withdrawn, too, and no key is left.
    sleep(Duration::from_secs(1)).await;
    provider.publish(&[]);
    assert_refused(&belfry, &old.token("ada"), 401, "token_invalid").await;
    assert_ended(&other).await;
    assert_refused(&belfry, &new.token("ada"), 401, "token_invalid").await;
}

#[tokio::test]
async fn unknown_key_ids_cause_few_requests_to_the_provider() {
    let (key, forger) = (Key::es256().named("k1"), Key::es256());
    let provider = Provider::start(&[&key]).await;
    // The requests come from one address, as fast as possible, so that the rate limit is turned off.
    let settings: [(&str, &dyn Display); 3] = [
        ("auth.jwks_refresh", &"1h"),
        ("auth.jwks_cooldown", &"2s"),
        ("limits.requests_per_second", &0),
    ];
    let belfry = ready(fetching(&provider, &settings).start().await).await;
    let begin = Instant::now();
    let mut tokens_sent = 0;
    while begin.elapsed() < Duration::from_secs(5) {
        let token = forger.token("ada").key_id(&format!("made-up-{tokens_sent}"));
        assert_eq!(request_with(&belfry, &token).await.expect(401)["code"], "token_invalid");
        tokens_sent += 1;
        assert!(is_accepted(&belfry, &key.token("ada")).await);
    }
    // One fetch at the start, and then at most one in two seconds.
    let max = 2 + usize::try_from(begin.elapsed().as_secs() / 2).unwrap();
    let fetches = provider.fetches();
    assert!(
        tokens_sent > 20 && (2..=max).contains(&fetches),
        "{fetches} fetches for {tokens_sent} tokens"
    );
}

#[tokio::test]
async fn provider_outage_at_the_start_is_waited_out() {
    let key = Key::eddsa().named("k1");
    let provider = Provider::start(&[&key]).await;
    provider.go_down();
    let belfry = fetching(&provider, &[]).start().await;
    until_keys_are(&belfry, "down").await;
    let waiting = assert_unavailable(&belfry, &key.token("ada")).await;
    // A token that no key of the provider can have signed is rejected.
    assert_refused(&belfry, &Key::hs256(OLD).token("ada"), 401, "token_invalid").await;
    belfry.log_line("JWKS fetch failed; retrying").await;

    provider.come_back();
    until_ready(&belfry).await;
    until_all_connected(&waiting).await;
    assert_notified(&waiting[0], &service(&belfry, &key), "There it is").await;
}

#[tokio::test]
async fn provider_outage_rejects_tokens_only_when_the_keys_are_stale() {
    let key = Key::eddsa().named("k1");
    let provider = Provider::start(&[&key]).await;
    let settings: [(&str, &dyn Display); 3] = [
        ("auth.jwks_refresh", &"1s"),
        ("auth.jwks_cooldown", &"1s"),
        ("auth.jwks_max_stale", &"15s"),
    ];
    let belfry = ready(fetching(&provider, &settings).start().await).await;
    let device = signed_in(Device::node(belfry.url()).token(&key.token("ada").sign())).await;

    provider.go_down();
    belfry.log_line("JWKS fetch failed; retrying").await;
    let second = signed_in(Device::node(belfry.url()).token(&key.token("ada").sign())).await;
    assert_notified(&second, &service(&belfry, &key), "Still there").await;
    until_keys_are(&belfry, "down").await;
    let waiting = assert_unavailable(&belfry, &key.token("ada")).await;

    provider.come_back();
    until_ready(&belfry).await;
    until_all_connected(&waiting).await;
    assert_notified(&device, &service(&belfry, &key), "Back").await;
    for device in [&device, &second] {
        assert_never_disconnected(device);
        assert_eq!(device.events("exception"), Vec::<Value>::new());
    }
}

#[tokio::test]
async fn provider_with_an_untrusted_certificate_is_not_used() {
    let key = Key::rs256().named("k1");
    let provider = Provider::start_with_tls(&[&key]).await;
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("ca.pem");
    fs::write(&file, provider.ca_pem()).unwrap();
    let trusting = fetching(&provider, &[("auth.jwks_ca_file", &file.display())]);
    let belfry = ready(trusting.start().await).await;
    assert!(is_accepted(&belfry, &key.token("ada")).await);

    let other = Provider::start_with_tls(&[&key]).await;
    let distrusting = fetching(&other, &[("auth.jwks_ca_file", &file.display())]);
    let belfry = distrusting.start().await;
    belfry.log_line("JWKS fetch failed; retrying").await;
    assert_unavailable(&belfry, &key.token("ada")).await;
    assert_eq!(other.fetches(), 0);
}

#[tokio::test]
async fn jwks_is_fetched_through_the_proxy_of_the_environment_only_over_https() {
    let key = Key::rs256().named("k1");
    let folder = TempDir::new().unwrap();
    let ca = folder.path().join("ca.pem");
    for (encrypted, no_proxy, uses_proxy) in
        [(true, "", true), (true, "localhost", false), (false, "", false)]
    {
        let proxy = ConnectProxy::start().await;
        let provider = if encrypted {
            let provider = Provider::start_with_tls(&[&key]).await;
            fs::write(&ca, provider.ca_pem()).unwrap();
            provider
        } else {
            Provider::start(&[&key]).await
        };
        let mut builder = fetching(&provider, &[]).env("NO_PROXY", no_proxy);
        if encrypted {
            builder = builder.setting("auth.jwks_ca_file", ca.display());
        }
        for variable in ["HTTP_PROXY", "HTTPS_PROXY"] {
            builder = builder.env(variable, &proxy.url);
        }
        let belfry = ready(builder.start().await).await;
        assert!(is_accepted(&belfry, &key.token("ada")).await);
        assert_eq!(provider.fetches(), 1);
        let connections = proxy.connections.load(Ordering::SeqCst);
        let case = format!("encrypted: {encrypted}, NO_PROXY: {no_proxy:?}");
        assert_eq!(connections, usize::from(uses_proxy), "{case}");
    }
}

/// An HTTP proxy that only tunnels (`CONNECT`), until it is dropped.
struct ConnectProxy {
    url: String,
    connections: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl ConnectProxy {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = connections.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(tunnel(client));
            }
        });
        Self { url, connections, accepting }
    }
}

impl Drop for ConnectProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn tunnel(client: TcpStream) -> std::io::Result<()> {
    let mut client = BufStream::new(client);
    let mut request = String::new();
    while !request.ends_with("\r\n\r\n") && client.read_line(&mut request).await? > 0 {}
    let target = request.strip_prefix("CONNECT ").and_then(|line| line.split(' ').next());
    let mut server = TcpStream::connect(target.unwrap_or_default()).await?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    client.flush().await?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
