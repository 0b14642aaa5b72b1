use std::sync::Arc;
use std::time::Duration;

use belfry_application::Backoff;
use belfry_application::ports::{KeyFingerprint, PortError, TokenError};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::algorithms::AcceptedAlgorithms;
use super::jwks;
use super::jwks_client::JwksSource;
use super::key_set::{KeySet, SignatureError, SignedContent, UnverifiedToken};
use super::settings::JwksSettings;

/// The keys that an identity provider publishes, as of the last successful fetch.
///
/// A token with a known key id is verified in memory. A token with an unknown key id requests a fetch and
/// waits for it, unless the last fetch was within [`JwksSettings::cooldown`]. Any number of tokens with
/// made-up key ids therefore cause at most one fetch per cooldown.
pub(super) struct RemoteKeys {
    settings: JwksSettings,
    source: Box<dyn JwksSource>,
    accepted: AcceptedAlgorithms,
    state: watch::Sender<FetchState>,
    refresh_requested: Notify,
}

/// The result of the fetches so far.
#[derive(Clone, Default)]
struct FetchState {
    fetched: Option<Fetched>,
    last_attempt: Option<Attempt>,
}

/// The keys of the last successful fetch.
#[derive(Clone)]
struct Fetched {
    keys: Arc<KeySet>,
    /// The text that `keys` were parsed from. It is not parsed again if the next fetch returns the same text.
    document: Arc<str>,
    at: Instant,
}

/// A fetch that has ended, successfully or not.
#[derive(Clone, Copy)]
struct Attempt {
    at: Instant,
    failed: bool,
}

impl RemoteKeys {
    /// How long the verification of a token waits for a fetch. It is less than the time in which a device
    /// must sign in.
    const MAX_WAIT: Duration = Duration::from_secs(3);
    const MIN_BACKOFF: Duration = Duration::from_secs(1);
    const MAX_BACKOFF: Duration = Duration::from_secs(30);

    pub(super) fn new(
        settings: JwksSettings,
        source: Box<dyn JwksSource>,
        accepted: AcceptedAlgorithms,
    ) -> Self {
        let (state, refresh_requested) = (watch::Sender::default(), Notify::new());
        Self { settings, source, accepted, state, refresh_requested }
    }

    /// Whether a published key may have signed a token with this algorithm.
    pub(super) fn may_have_signed(&self, token: &UnverifiedToken<'_>) -> bool {
        self.accepted.is_allowed_in_jwks(token.algorithm())
    }

    /// Whether keys have been fetched and are not older than [`JwksSettings::max_stale`].
    pub(super) fn are_available(&self) -> bool {
        self.usable_keys(&self.state.borrow()).is_some()
    }

    /// Requests a fetch. The request is ignored within [`JwksSettings::cooldown`] of the last fetch.
    pub(super) fn request_refresh(&self) {
        self.refresh_requested.notify_one();
    }

    /// The keys of the last successful fetch, however long ago it was.
    pub(super) fn fingerprints(&self) -> Vec<KeyFingerprint> {
        let state = self.state.borrow();
        state.fetched.iter().flat_map(|fetched| fetched.keys.fingerprints()).collect()
    }

    /// The token's content, if a published key has signed it. The claims are not checked.
    pub(super) async fn verify(
        &self,
        token: &UnverifiedToken<'_>,
    ) -> Result<SignedContent, TokenError> {
        // The state is cloned, so that verification does not hold its lock.
        let state = self.state.borrow().clone();
        if let Some(result) = self.verify_with(&state, token) {
            return result;
        }
        let mut changes = self.state.subscribe();
        let state = changes.borrow_and_update().clone();
        if self.cooldown_is_over(&state) {
            self.request_refresh();
            // After a timeout, the state below determines the error.
            let _ = timeout(Self::MAX_WAIT, changes.changed()).await;
        }
        let state = self.state.borrow().clone();
        self.verify_with(&state, token).unwrap_or_else(|| Err(self.unverifiable(&state)))
    }

    /// `None` if the token cannot be verified without a fetch.
    fn verify_with(
        &self,
        state: &FetchState,
        token: &UnverifiedToken<'_>,
    ) -> Option<Result<SignedContent, TokenError>> {
        match self.usable_keys(state)?.verify(token) {
            Err(SignatureError::UnknownKey) => None,
            result => Some(result.map_err(TokenError::from)),
        }
    }

    /// The error for a token that [`verify_with`](Self::verify_with) cannot verify in this state.
    fn unverifiable(&self, state: &FetchState) -> TokenError {
        let unavailable = |reason: &str| PortError::unavailable(reason).into();
        match &state.last_attempt {
            Some(attempt) if !attempt.failed && self.usable_keys(state).is_some() => {
                SignatureError::UnknownKey.into()
            }
            _ if state.fetched.is_none() => unavailable("the JWKS has not been fetched yet"),
            _ => unavailable("the JWKS cannot be fetched at the moment"),
        }
    }

    /// `None` before the first fetch and after [`JwksSettings::max_stale`].
    fn usable_keys<'a>(&self, state: &'a FetchState) -> Option<&'a KeySet> {
        let fetched = state.fetched.as_ref()?;
        let too_old = self.settings.max_stale.is_some_and(|max| fetched.at.elapsed() > max);
        (!too_old).then_some(&*fetched.keys)
    }

    fn cooldown_is_over(&self, state: &FetchState) -> bool {
        state.last_attempt.is_none_or(|last| last.at.elapsed() >= self.settings.cooldown)
    }

    /// Fetches the keys periodically and on request, until `stop` is cancelled. After a failure the last
    /// keys stay in use and the fetch is retried with backoff.
    pub(super) async fn run_refresh(&self, stop: &CancellationToken) {
        let max_backoff = Self::MAX_BACKOFF.min(self.settings.refresh);
        let mut backoff = Backoff::new(Self::MIN_BACKOFF, max_backoff);
        while let Some(document) = stop.run_until_cancelled(self.source.fetch()).await {
            let retry_in = backoff.next_delay();
            let pause = if self.apply(document, retry_in) {
                backoff.reset();
                self.settings.refresh
            } else {
                retry_in
            };
            if stop.run_until_cancelled(self.wait_for_next_fetch(pause)).await.is_none() {
                return;
            }
        }
    }

    /// Waits until the next fetch is due: `interval`, or earlier on request.
    async fn wait_for_next_fetch(&self, interval: Duration) {
        let requested = async {
            loop {
                self.refresh_requested.notified().await;
                // A request from before the last fetch is ignored, because that fetch has served it.
                if self.cooldown_is_over(&self.state.borrow()) {
                    return;
                }
            }
        };
        tokio::select! {
            () = sleep(interval) => {}
            () = requested => {}
        }
    }

    /// Applies and logs the result of a fetch. Returns `true` if the keys are now up to date, or `false`
    /// after a failure, which leaves the old keys in use.
    ///
    /// A JWKS that has only unusable keys counts as a failure, because the provider is more likely to be
    /// broken than to have withdrawn all of its keys. An empty JWKS withdraws all keys, but counts as a
    /// failure if no keys have been fetched before.
    fn apply(&self, document: Result<String, PortError>, retry_in: Duration) -> bool {
        let before = self.state.borrow().clone();
        let at = Instant::now();
        // The query is not logged, because it may contain a secret.
        let url = self.settings.url.split(['?', '#']).next();
        let fetched = document.and_then(|document| match &before.fetched {
            Some(known) if *known.document == *document => Ok(Fetched { at, ..known.clone() }),
            _ => {
                let keys =
                    jwks::parse(&document, &self.accepted).map_err(PortError::unavailable)?;
                if keys.is_empty() && before.fetched.is_none() {
                    return Err(PortError::unavailable("the JWKS contains no keys"));
                }
                info!(keys = keys.len(), url, "JWKS updated");
                let keys = Arc::new(KeySet::new(keys));
                Ok(Fetched { keys, document: document.into(), at })
            }
        });
        let (failed_before, failed) =
            (before.last_attempt.is_some_and(|last| last.failed), fetched.is_err());
        match &fetched {
            Err(error) if !failed_before => {
                let error = error as &dyn std::error::Error;
                warn!(error, url, ?retry_in, "JWKS fetch failed; retrying");
            }
            Ok(_) if failed_before => info!(url, "JWKS fetch recovered"),
            _ => {}
        }
        let fetched = fetched.ok().or(before.fetched);
        self.state.send_replace(FetchState { fetched, last_attempt: Some(Attempt { at, failed }) });
        !failed
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use parking_lot::Mutex;
    use serde_json::json;
    use tokio::task::JoinHandle;

    use super::super::signing::Key;
    use super::*;

    /// An identity provider that publishes a JWKS.
    #[derive(Clone, Default)]
    struct Provider {
        /// The JWKS; `None` while the provider is down.
        document: Arc<Mutex<Option<String>>>,
        fetches: Arc<AtomicUsize>,
    }

    #[async_trait]
    impl JwksSource for Provider {
        async fn fetch(&self) -> Result<String, PortError> {
            self.fetches.fetch_add(1, Ordering::SeqCst);
            // A fetch takes time, so that tokens can arrive during it.
            sleep(Duration::from_millis(100)).await;
            self.document.lock().clone().ok_or_else(|| PortError::unavailable("down"))
        }
    }

    impl Provider {
        fn publish(&self, keys: &[(&str, &Key)]) {
            let keys: Vec<_> = keys.iter().map(|(id, key)| key.jwk(id)).collect();
            *self.document.lock() = Some(json!({ "keys": keys }).to_string());
        }

        fn go_down(&self) {
            *self.document.lock() = None;
        }

        fn fetches(&self) -> usize {
            self.fetches.load(Ordering::SeqCst)
        }
    }

    struct Fixture {
        provider: Provider,
        keys: Arc<RemoteKeys>,
        stop: CancellationToken,
        refresh: JoinHandle<()>,
    }

    impl Fixture {
        fn with(provider: Provider, max_stale: Option<Duration>) -> Self {
            let default = JwksSettings::new("https://id.example.org/keys");
            let settings = JwksSettings { max_stale, ..default };
            let source = Box::new(provider.clone());
            let keys = RemoteKeys::new(settings, source, AcceptedAlgorithms::default());
            let (keys, stop) = (Arc::new(keys), CancellationToken::new());
            let refresh = tokio::spawn({
                let (keys, stop) = (keys.clone(), stop.clone());
                async move { keys.run_refresh(&stop).await }
            });
            Self { provider, keys, stop, refresh }
        }

        async fn with_published(keys: &[(&str, &Key)]) -> Self {
            let provider = Provider::default();
            provider.publish(keys);
            let fixture = Self::with(provider, Some(Duration::from_hours(24)));
            sleep(Duration::from_secs(1)).await;
            fixture
        }

        async fn verify(&self, id: &str, key: &Key) -> Outcome {
            let token = key.sign_with_id(id, &json!({ "sub": "ada" }));
            match self.keys.verify(&UnverifiedToken::parse(&token).unwrap()).await {
                Ok(content) => {
                    assert_eq!(content.claims["sub"], "ada");
                    Outcome::Verified
                }
                Err(TokenError::Invalid(_)) => Outcome::Invalid,
                Err(TokenError::Port(PortError::Unavailable(_))) => Outcome::Unavailable,
                Err(other) => panic!("{other}"),
            }
        }
    }

    #[derive(Debug, PartialEq, Eq)]
    enum Outcome {
        Verified,
        Invalid,
        Unavailable,
    }

    #[tokio::test(start_paused = true)]
    async fn known_key_causes_no_fetch() {
        let (one, two) = (Key::ed25519(), Key::p256());
        let fixture = Fixture::with_published(&[("1", &one), ("2", &two)]).await;
        for _ in 0..100 {
            assert_eq!(fixture.verify("1", &one).await, Outcome::Verified);
            assert_eq!(fixture.verify("2", &two).await, Outcome::Verified);
            assert_eq!(fixture.verify("1", &Key::ed25519()).await, Outcome::Invalid);
        }
        assert_eq!(fixture.provider.fetches(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn first_token_with_a_new_key_id_causes_one_fetch() {
        let (old, new) = (Key::ed25519(), Key::ed25519());
        let fixture = Fixture::with_published(&[("old", &old)]).await;
        fixture.provider.publish(&[("old", &old), ("new", &new)]);
        sleep(Duration::from_secs(20)).await;
        let (first, second) =
            tokio::join!(fixture.verify("new", &new), fixture.verify("new", &new));
        assert_eq!((first, second), (Outcome::Verified, Outcome::Verified));
        assert_eq!(fixture.verify("old", &old).await, Outcome::Verified);
        assert_eq!(fixture.provider.fetches(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn made_up_key_ids_cause_one_fetch_per_cooldown() {
        let (key, other) = (Key::ed25519(), Key::ed25519());
        let fixture = Fixture::with_published(&[("1", &key)]).await;
        let begin = Instant::now();
        let mut made_up = 0;
        while begin.elapsed() < Duration::from_mins(1) {
            assert_eq!(fixture.verify(&format!("x{made_up}"), &other).await, Outcome::Invalid);
            made_up += 1;
            sleep(Duration::from_millis(10)).await;
        }
        assert!(made_up > 1_000, "{made_up}");
        let fetches = fixture.provider.fetches();
        assert!((5..=7).contains(&fetches), "{fetches} fetches in a minute, ten seconds apart");
    }

    #[tokio::test(start_paused = true)]
    async fn keys_are_fetched_periodically_and_withdrawn_keys_are_rejected() {
        let (old, new) = (Key::ed25519(), Key::ed25519());
        let fixture = Fixture::with_published(&[("old", &old)]).await;
        fixture.provider.publish(&[("new", &new)]);
        assert_eq!(fixture.verify("old", &old).await, Outcome::Verified);
        sleep(Duration::from_mins(5)).await;
        assert_eq!(fixture.provider.fetches(), 2);
        assert_eq!(fixture.verify("old", &old).await, Outcome::Invalid);
        assert_eq!(fixture.verify("new", &new).await, Outcome::Verified);
    }

    #[tokio::test(start_paused = true)]
    async fn fetch_is_retried_with_backoff_while_the_provider_is_down_at_startup() {
        let key = Key::ed25519();
        let fixture = Fixture::with(Provider::default(), None);
        assert_eq!(fixture.verify("1", &key).await, Outcome::Unavailable);
        assert!(!fixture.keys.are_available());
        sleep(Duration::from_mins(10)).await;
        let fetches = fixture.provider.fetches();
        assert!((15..=30).contains(&fetches), "{fetches} attempts in ten minutes");
        fixture.provider.publish(&[("1", &key)]);
        sleep(Duration::from_secs(31)).await;
        assert_eq!(fixture.verify("1", &key).await, Outcome::Verified);
        assert!(fixture.keys.are_available());
    }

    #[tokio::test(start_paused = true)]
    async fn token_that_arrives_during_the_first_fetch_waits_for_it() {
        let (provider, key) = (Provider::default(), Key::ed25519());
        provider.publish(&[("1", &key)]);
        let fixture = Fixture::with(provider, None);
        assert_eq!(fixture.verify("1", &key).await, Outcome::Verified);
        assert_eq!(fixture.provider.fetches(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn known_keys_stay_valid_during_an_outage_until_max_stale() {
        let key = Key::ed25519();
        let fixture = Fixture::with_published(&[("1", &key)]).await;
        fixture.provider.go_down();
        sleep(Duration::from_hours(23)).await;
        assert_eq!(fixture.verify("1", &key).await, Outcome::Verified);
        assert!(fixture.keys.are_available());
        // During the outage it is unknown whether the provider has published this key.
        assert_eq!(fixture.verify("2", &Key::ed25519()).await, Outcome::Unavailable);
        sleep(Duration::from_hours(2)).await;
        assert_eq!(fixture.verify("1", &key).await, Outcome::Unavailable);
        assert!(!fixture.keys.are_available());

        fixture.provider.publish(&[("1", &key)]);
        sleep(Duration::from_secs(31)).await;
        assert_eq!(fixture.verify("1", &key).await, Outcome::Verified);
    }

    #[tokio::test(start_paused = true)]
    async fn known_keys_stay_valid_forever_without_max_stale() {
        let (provider, key) = (Provider::default(), Key::ed25519());
        provider.publish(&[("1", &key)]);
        let fixture = Fixture::with(provider, None);
        assert_eq!(fixture.verify("1", &key).await, Outcome::Verified);
        fixture.provider.go_down();
        sleep(Duration::from_hours(24 * 7)).await;
        assert_eq!(fixture.verify("1", &key).await, Outcome::Verified);
    }

    #[tokio::test(start_paused = true)]
    async fn document_without_keys_does_not_replace_known_keys() {
        let key = Key::ed25519();
        let fixture = Fixture::with_published(&[("1", &key)]).await;
        for document in ["", "{}", r#"{"keys":[{}]}"#, "<html>"] {
            *fixture.provider.document.lock() = Some(document.to_owned());
            sleep(Duration::from_mins(6)).await;
            assert_eq!(fixture.verify("1", &key).await, Outcome::Verified, "{document}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn empty_jwks_withdraws_the_keys_and_an_outage_does_not() {
        let key = Key::ed25519();
        let fixture = Fixture::with_published(&[("1", &key)]).await;
        fixture.provider.go_down();
        sleep(Duration::from_hours(24 * 7)).await;
        assert_eq!(fixture.keys.fingerprints().len(), 1);
        fixture.provider.publish(&[]);
        sleep(Duration::from_mins(6)).await;
        assert_eq!(fixture.keys.fingerprints(), []);
        assert_eq!(fixture.verify("1", &key).await, Outcome::Invalid);
    }

    #[tokio::test(start_paused = true)]
    async fn refresh_ends_on_cancellation_during_a_pause() {
        let fixture = Fixture::with_published(&[("1", &Key::ed25519())]).await;
        fixture.stop.cancel();
        timeout(Duration::from_secs(1), fixture.refresh).await.unwrap().unwrap();
    }
}
