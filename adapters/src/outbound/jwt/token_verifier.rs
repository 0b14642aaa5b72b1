use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use belfry_application::ports::{
    BearerToken, Claims, Clock, KeyFingerprint, TokenError, TokenVerifier,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::algorithms::AcceptedAlgorithms;
use super::claim_rules::ClaimRules;
use super::error::InvalidJwtSettings;
use super::jwks_client::JwksClient;
use super::key_set::UnverifiedToken;
use super::local_keys::LocalKeys;
use super::remote_keys::RemoteKeys;
use super::settings::JwtSettings;

/// Verifies signed JSON Web Tokens (RFC 7519) according to [`JwtSettings`] and the best current practices
/// (RFC 8725): the algorithms are pinned to each key and never taken from the token, an expiry is required
/// unless [`JwtSettings::lifetime_without_exp`] is set, and the reason for a rejection is logged but not sent
/// to the client.
///
/// Verification takes less than 0.1 ms with the right key (measured: 20 µs for RS256, 45 to 65 µs for ES256)
/// and no I/O, so it runs on the caller's thread. Only a token with an unknown key id waits for a fetch of
/// the published keys. [`run_key_refresh`](Self::run_key_refresh) keeps the keys up to date.
pub struct JwtVerifier {
    local: LocalKeys,
    remote: Option<Arc<RemoteKeys>>,
    rules: ClaimRules,
    clock: Arc<dyn Clock>,
}

impl JwtVerifier {
    #[expect(missing_docs, reason = "nothing to add")]
    pub fn new(settings: &JwtSettings, clock: Arc<dyn Clock>) -> Result<Self, InvalidJwtSettings> {
        let local = LocalKeys::new(settings)?;
        let remote = match &settings.jwks {
            None => None,
            Some(jwks) => {
                let client = Box::new(JwksClient::new(jwks)?);
                let accepted = AcceptedAlgorithms::parse(&settings.algorithms)?;
                Some(Arc::new(RemoteKeys::new(jwks.clone(), client, accepted)))
            }
        };
        Ok(Self { local, remote, rules: ClaimRules::new(settings)?, clock })
    }

    /// Keeps the keys up to date until `stop` is cancelled: polls the files, fetches the published keys,
    /// and does both at once on `reload`. After a failure the old keys stay in use.
    pub async fn run_key_refresh(&self, reload: &Notify, stop: &CancellationToken) {
        let reload_files = Notify::new();
        let forward_reload = async {
            loop {
                reload.notified().await;
                reload_files.notify_one();
                if let Some(remote) = &self.remote {
                    remote.request_refresh();
                }
            }
        };
        let fetch = async {
            if let Some(remote) = &self.remote {
                remote.run_refresh(stop).await;
            }
        };
        let refresh = async { tokio::join!(self.local.run_reload(&reload_files, stop), fetch) };
        tokio::select! {
            _ = refresh => {}
            () = forward_reload => {}
        }
    }

    /// Whether every source has usable keys. `false` while the published keys have not been fetched yet
    /// or are older than [`JwksSettings::max_stale`](super::JwksSettings::max_stale).
    pub fn has_keys(&self) -> bool {
        self.remote.as_ref().is_none_or(|remote| remote.are_available())
    }
}

impl fmt::Debug for JwtVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtVerifier").field("rules", &self.rules).finish_non_exhaustive()
    }
}

#[async_trait]
impl TokenVerifier for JwtVerifier {
    async fn verify(&self, token: &BearerToken) -> Result<Claims, TokenError> {
        let token = UnverifiedToken::parse(token.reveal())?;
        let content = match (self.local.current().verify(&token), &self.remote) {
            (Ok(content), _) => content,
            (Err(_), Some(remote)) if remote.may_have_signed(&token) => {
                remote.verify(&token).await?
            }
            (Err(error), _) => return Err(error.into()),
        };
        self.rules.check(&content, self.clock.now())
    }

    fn accepted_keys(&self) -> HashSet<KeyFingerprint> {
        let mut keys: HashSet<_> = self.local.current().fingerprints().collect();
        keys.extend(self.remote.iter().flat_map(|remote| remote.fingerprints()));
        keys
    }
}

#[cfg(test)]
mod tests {
    use belfry_application::testing::contracts::token_verifier::{Tokens, promises};
    use belfry_application::testing::{ManualClock, user};
    use belfry_domain::Timestamp;
    use jsonwebtoken::Algorithm;
    use serde_json::{Value, json};

    use super::super::secret::Secret;
    use super::super::settings::{JwksSettings, JwtKey};
    use super::super::signing::{Key, SECRET, base64url};
    use super::*;

    /// In seconds since 1970.
    const NOW: i64 = 1_800_000_000;

    fn verifier(key: JwtKey, algorithm: Algorithm) -> JwtVerifier {
        let settings =
            JwtSettings { algorithms: vec![format!("{algorithm:?}")], ..JwtSettings::new([key]) };
        JwtVerifier::new(&settings, Arc::new(ManualClock::at(NOW * 1_000))).unwrap()
    }

    fn hs256() -> JwtVerifier {
        verifier(Key::hmac().public(), Algorithm::HS256)
    }

    fn claims() -> Value {
        json!({ "sub": "ada", "exp": NOW + 60 })
    }

    async fn verify(verifier: &JwtVerifier, token: &str) -> Result<Claims, TokenError> {
        let token = BearerToken::parse(token).unwrap().expect("a token");
        verifier.verify(&token).await
    }

    async fn assert_invalid(verifier: &JwtVerifier, token: &str) {
        let result = verify(verifier, token).await;
        let is_invalid = matches!(result, Err(TokenError::Invalid(_) | TokenError::Claim(_)));
        assert!(is_invalid, "{token:.300}: {result:?}");
    }

    fn secret(bytes: &[u8]) -> JwtKey {
        JwtKey::Secret(Secret::new(bytes).unwrap())
    }

    #[tokio::test]
    async fn verifier_with_one_secret_fulfils_the_contract() {
        let mint = |name: &str, end| Key::hmac().sign(Algorithm::HS256, &claims_of(name, end));
        check_contract(&JwtSettings::new([secret(SECRET)]), mint).await;
    }

    #[tokio::test]
    async fn verifier_with_several_keys_fulfils_the_contract() {
        let unused = secret(b"the new one, not used yet");
        let keys = [unused, Key::another_rsa().public(), Key::rsa().public()];
        let mint = |name: &str, end| Key::rsa().sign(Algorithm::RS256, &claims_of(name, end));
        check_contract(&JwtSettings::new(keys), mint).await;
    }

    #[tokio::test]
    async fn verifier_with_published_keys_fulfils_the_contract() {
        let key = Key::ed25519();
        let set = json!({ "keys": [Key::p256().jwk("k1"), key.jwk("k2")] }).to_string();
        let publish = axum::routing::get(move || std::future::ready(set.clone()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let router = axum::Router::new().route("/keys", publish);
        tokio::spawn(async move { axum::serve(listener, router).await });

        let settings = JwtSettings { jwks: Some(JwksSettings::new(&url)), ..JwtSettings::new([]) };
        let mint = move |name: &str, end| key.sign_with_id("k2", &claims_of(name, end));
        check_contract(&settings, mint).await;
    }

    fn claims_of(name: &str, end: Timestamp) -> Value {
        json!({ "sub": name, "exp": end.unix_millis() / 1_000 })
    }

    async fn check_contract(
        settings: &JwtSettings,
        mint: impl Fn(&str, Timestamp) -> String + Clone + Send + Sync + 'static,
    ) {
        for promise in promises() {
            let clock = Arc::new(ManualClock::at(NOW * 1_000));
            let verifier = Arc::new(JwtVerifier::new(settings, clock.clone()).unwrap());
            let stop = CancellationToken::new();
            let refresh = tokio::spawn({
                let (verifier, stop) = (verifier.clone(), stop.clone());
                async move { verifier.run_key_refresh(&Notify::new(), &stop).await }
            });
            promise.check(Tokens::new(verifier, mint.clone(), clock.now())).await;
            stop.cancel();
            refresh.await.unwrap();
        }
    }

    #[tokio::test]
    async fn claims_contain_the_key_fingerprint_which_is_equal_in_pem_and_jwks() {
        let folder = tempfile::tempdir().unwrap();
        for key in [Key::rsa(), Key::p256(), Key::p384(), Key::ed25519()] {
            let file = folder.path().join("jwks.json");
            let mut jwk = key.jwk("k1");
            jwk["alg"] = Value::Null;
            std::fs::write(&file, json!({ "keys": [jwk] }).to_string()).unwrap();
            let verifiers = [key.public(), JwtKey::JwksFile(file)].map(|source| {
                let clock = Arc::new(ManualClock::at(NOW * 1_000));
                JwtVerifier::new(&JwtSettings::new([source]), clock).unwrap()
            });
            let [pem, jwks] = verifiers.each_ref().map(TokenVerifier::accepted_keys);
            assert_eq!(pem, jwks);
            assert_eq!(pem.len(), 1);
            let claims = verify(&verifiers[1], &key.sign_with_id("k1", &claims())).await;
            assert!(pem.contains(&claims.unwrap().key));
        }
        let keys = [Key::rsa(), Key::another_rsa(), Key::p256(), Key::hmac()];
        let settings = JwtSettings::new(keys.each_ref().map(Key::public));
        let verifier = JwtVerifier::new(&settings, Arc::new(ManualClock::at(0))).unwrap();
        assert_eq!(verifier.accepted_keys().len(), keys.len());
    }

    #[tokio::test]
    async fn settings_without_keys_are_rejected() {
        let clock = Arc::new(ManualClock::at(NOW * 1_000));
        let error = JwtVerifier::new(&JwtSettings::new([]), clock).unwrap_err();
        assert_eq!(error, InvalidJwtSettings::NoKey);
    }

    /// Tries every header parameter that can contain a key or link to one (RFC 7515, 4.1).
    #[tokio::test]
    async fn keys_in_the_token_header_are_ignored() {
        let (trusted, forger) = (Key::rsa(), Key::another_rsa());
        let verifier = verifier(trusted.public(), Algorithm::RS256);
        for (name, value) in [
            ("jwk", forger.jwk("x")),
            ("jku", json!("http://127.0.0.1:1/keys")),
            ("x5u", json!("http://127.0.0.1:1/certificate")),
            ("x5c", json!([forger.public_pem()])),
        ] {
            let header = json!({ "alg": "RS256", name: value });
            assert_invalid(&verifier, &forger.sign_raw(Algorithm::RS256, &header, &claims())).await;
            let ours = trusted.sign_raw(Algorithm::RS256, &header, &claims());
            assert!(verify(&verifier, &ours).await.is_ok(), "{name} is ignored");
        }
    }

    #[tokio::test]
    async fn token_of_each_algorithm_is_accepted_and_altered_token_is_rejected() {
        for (key, algorithms) in [
            (Key::hmac(), &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512][..]),
            (
                Key::rsa(),
                &[
                    Algorithm::RS256,
                    Algorithm::RS384,
                    Algorithm::RS512,
                    Algorithm::PS256,
                    Algorithm::PS384,
                    Algorithm::PS512,
                ],
            ),
            (Key::p256(), &[Algorithm::ES256]),
            (Key::p384(), &[Algorithm::ES384]),
            (Key::ed25519(), &[Algorithm::EdDSA]),
        ] {
            for algorithm in algorithms {
                let verifier = verifier(key.public(), *algorithm);
                let token = key.sign(*algorithm, &claims());
                let accepted = verify(&verifier, &token).await.unwrap();
                assert_eq!(accepted.user, user("ada"), "{algorithm:?}");

                let parts: Vec<_> = token.split('.').collect();
                let other = base64url(&json!({ "sub": "eve", "exp": NOW + 60 }));
                assert_invalid(&verifier, &format!("{}.{other}.{}", parts[0], parts[2])).await;
                assert_invalid(&verifier, &format!("{}.{}.", parts[0], parts[1])).await;
            }
        }
    }

    #[tokio::test]
    async fn token_of_another_key_of_the_same_type_is_rejected() {
        let rsa = verifier(Key::rsa().public(), Algorithm::RS256);
        assert_invalid(&rsa, &Key::another_rsa().sign(Algorithm::RS256, &claims())).await;
        let secret = JwtKey::Secret(Secret::new([7; 32]).unwrap());
        let token = Key::hmac().sign(Algorithm::HS256, &claims());
        assert_invalid(&verifier(secret, Algorithm::HS256), &token).await;
    }

    #[tokio::test]
    async fn token_with_an_algorithm_that_is_not_accepted_is_rejected() {
        let token = Key::hmac().sign(Algorithm::HS512, &claims());
        assert_invalid(&hs256(), &token).await;

        let rsa = Key::rsa();
        let rs256 = verifier(rsa.public(), Algorithm::RS256);
        assert_invalid(&rs256, &rsa.sign(Algorithm::PS256, &claims())).await;
        // Algorithm confusion: the public key used as an HMAC secret.
        let confused = Key::secret(rsa.public_pem().as_bytes()).sign(Algorithm::HS256, &claims());
        assert_invalid(&rs256, &confused).await;

        let body = base64url(&claims());
        for alg in ["none", "None", "NONE", "", "HS256 ", "ES512"] {
            let header = base64url(&json!({ "alg": alg, "typ": "JWT" }));
            assert_invalid(&hs256(), &format!("{header}.{body}.")).await;
            assert_invalid(&hs256(), &format!("{header}.{body}.AAAA")).await;
        }
    }

    #[tokio::test]
    async fn token_with_critical_extensions_is_rejected() {
        let header = json!({ "alg": "HS256", "crit": ["b64"], "b64": false });
        let token = Key::hmac().sign_raw(Algorithm::HS256, &header, &claims());
        assert_invalid(&hs256(), &token).await;
        let header = json!({ "alg": "HS256", "b64": false });
        let token = Key::hmac().sign_raw(Algorithm::HS256, &header, &claims());
        assert!(
            verify(&hs256(), &token).await.is_ok(),
            "extensions that are not critical are ignored"
        );
    }

    #[tokio::test]
    async fn expiry_is_checked_against_the_given_clock() {
        let clock = Arc::new(ManualClock::at(NOW * 1_000));
        let settings = JwtSettings::new([Key::hmac().public()]);
        let verifier = JwtVerifier::new(&settings, clock.clone()).unwrap();
        let token = Key::hmac().sign(Algorithm::HS256, &claims());
        assert!(verify(&verifier, &token).await.is_ok());
        clock.set((NOW + 60) * 1_000 - 1);
        assert!(verify(&verifier, &token).await.is_ok());
        clock.set((NOW + 60) * 1_000);
        let expired = verify(&verifier, &token).await;
        assert!(matches!(expired, Err(TokenError::Expired)));
    }

    #[tokio::test]
    async fn malformed_tokens_are_rejected() {
        let good = Key::hmac().sign(Algorithm::HS256, &claims());
        let header = good.split('.').next().unwrap();
        for length in 0..good.len() {
            if let Some(token) = BearerToken::parse(&good[..length]).unwrap() {
                assert!(hs256().verify(&token).await.is_err(), "{length}");
            }
        }
        for token in [
            ".".to_owned(),
            "..".to_owned(),
            "...".to_owned(),
            format!("{good}.x"),
            format!("{header}..{}", good.rsplit('.').next().unwrap()),
            "ä.ö.ü".to_owned(),
            "\u{0}.\u{0}.\u{0}".to_owned(),
            "x".repeat(BearerToken::MAX_BYTES),
            ".".repeat(BearerToken::MAX_BYTES),
        ] {
            assert_invalid(&hs256(), &token).await;
        }
    }

    #[tokio::test]
    async fn signed_tokens_with_malformed_claims_are_rejected() {
        for claims in [
            b"\xff\xfe{}".to_vec(),
            b"{\"sub\":\"\xff\",\"exp\":1900000000}".to_vec(),
            b"[]".to_vec(),
            b"null".to_vec(),
            b"".to_vec(),
            b"{".repeat(5_000),
            b"[".repeat(5_000),
            br#"{"exp":1e999,"sub":"ada"}"#.to_vec(),
        ] {
            let token = Key::hmac().sign_bytes(Algorithm::HS256, &claims);
            assert_invalid(&hs256(), &token).await;
        }
    }
}
