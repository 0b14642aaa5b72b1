use std::sync::Arc;
use std::time::Duration;

use belfry_application::ports::{PortError, TokenError};
use serde_json::{Map, Value};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::algorithms::Accepted;
use super::jwks;
use super::jwks_fetch::JwksFetch;
use super::key_set::{KeySet, SignedToken, Unopened};
use super::settings::JwksSettings;

/// The keys that an identity provider publishes, as they were fetched last.
///
/// A token whose key is known is checked with what is in memory. One that names an unknown key has them
/// fetched again and waits for that, unless they have just been fetched; so tokens with made-up key ids
/// cause one fetch in each [`JwksSettings::cooldown`], however many they are.
pub(super) struct RemoteKeys {
    settings: JwksSettings,
    fetch: Box<dyn JwksFetch>,
    accepted: Accepted,
    state: watch::Sender<State>,
    wanted: Notify,
}

#[derive(Clone, Default)]
struct State {
    fetched: Option<Fetched>,
    last_attempt: Option<Attempt>,
}

/// Keys, the document they were in, and when it was last seen.
#[derive(Clone)]
struct Fetched {
    keys: Arc<KeySet>,
    document: Arc<str>,
    at: Instant,
}

#[derive(Clone, Copy)]
struct Attempt {
    at: Instant,
    failed: bool,
}

impl RemoteKeys {
    /// How long a token waits for a fetch: less than a device has to sign in.
    const WAIT: Duration = Duration::from_secs(3);
    const FIRST_PAUSE: Duration = Duration::from_secs(1);
    const LONGEST_PAUSE: Duration = Duration::from_secs(30);

    pub(super) fn new(
        settings: JwksSettings,
        fetch: Box<dyn JwksFetch>,
        accepted: Accepted,
    ) -> Self {
        let (state, wanted) = (watch::Sender::default(), Notify::new());
        Self { settings, fetch, accepted, state, wanted }
    }

    /// Whether a token of this algorithm can be one of theirs.
    pub(super) fn may_have_signed(&self, token: &SignedToken<'_>) -> bool {
        self.accepted.may_be_published(token.algorithm())
    }

    /// Whether there are keys to check tokens with.
    pub(super) fn are_known(&self) -> bool {
        self.usable(&self.state.borrow()).is_some()
    }

    /// Asks for a fetch. It is passed over where the last one was not long ago.
    pub(super) fn refresh(&self) {
        self.wanted.notify_one();
    }

    /// What a token claims, if one of the keys signed it.
    pub(super) async fn open(
        &self,
        token: &SignedToken<'_>,
    ) -> Result<Map<String, Value>, TokenError> {
        // A copy, so that no token holds the lock while it is checked.
        let state = self.state.borrow().clone();
        if let Some(decided) = self.decide(&state, token) {
            return decided;
        }
        let mut changes = self.state.subscribe();
        let state = changes.borrow_and_update().clone();
        if self.may_fetch(&state) {
            self.refresh();
            // Too late is no failure of its own: then the state tells what is missing.
            let _ = timeout(Self::WAIT, changes.changed()).await;
        }
        let state = self.state.borrow().clone();
        self.decide(&state, token).unwrap_or_else(|| Err(self.undecided(&state)))
    }

    /// `None` if only a fetch can tell.
    fn decide(
        &self,
        state: &State,
        token: &SignedToken<'_>,
    ) -> Option<Result<Map<String, Value>, TokenError>> {
        match self.usable(state)?.open(token) {
            Err(Unopened::UnknownKey) => None,
            decided => Some(decided.map_err(TokenError::from)),
        }
    }

    fn undecided(&self, state: &State) -> TokenError {
        let unavailable = |why: &str| PortError::unavailable(why).into();
        match &state.last_attempt {
            Some(attempt) if !attempt.failed && self.usable(state).is_some() => {
                Unopened::UnknownKey.into()
            }
            _ if state.fetched.is_none() => {
                unavailable("the identity provider's keys have not been fetched yet")
            }
            _ => unavailable("the identity provider's keys cannot be fetched at the moment"),
        }
    }

    fn usable<'a>(&self, state: &'a State) -> Option<&'a KeySet> {
        let fetched = state.fetched.as_ref()?;
        let too_old = self.settings.max_stale.is_some_and(|most| fetched.at.elapsed() > most);
        (!too_old).then_some(&*fetched.keys)
    }

    fn may_fetch(&self, state: &State) -> bool {
        state.last_attempt.is_none_or(|last| last.at.elapsed() >= self.settings.cooldown)
    }

    /// Fetches them again and again, until told to stop. A failure is a pause, never the end, and
    /// leaves the keys as they are.
    pub(super) async fn keep(&self, stop: &CancellationToken) {
        let mut pause = Self::FIRST_PAUSE;
        while let Some(document) = stop.run_until_cancelled(self.fetch.fetch()).await {
            let next = if self.take(document) {
                pause = Self::FIRST_PAUSE;
                self.settings.refresh
            } else {
                let next = pause.min(self.settings.refresh);
                pause = (pause * 2).min(Self::LONGEST_PAUSE);
                next
            };
            if stop.run_until_cancelled(self.time_to_fetch(next)).await.is_none() {
                return;
            }
        }
    }

    async fn time_to_fetch(&self, next: Duration) {
        let asked_for = async {
            loop {
                self.wanted.notified().await;
                // What was asked for during a fetch has been answered by it.
                if self.may_fetch(&self.state.borrow()) {
                    return;
                }
            }
        };
        tokio::select! {
            () = sleep(next) => {}
            () = asked_for => {}
        }
    }

    /// Takes over what was fetched, if it is of use. An empty set is none: a provider that signs nothing
    /// any more is less likely than one that is not well.
    fn take(&self, document: Result<String, PortError>) -> bool {
        let before = self.state.borrow().clone();
        let at = Instant::now();
        let fetched = document.and_then(|document| match &before.fetched {
            Some(known) if *known.document == *document => Ok(Fetched { at, ..known.clone() }),
            _ => {
                let keys = jwks::read(&document, &self.accepted).map_err(PortError::unavailable)?;
                info!(keys = keys.len(), url = self.settings.url, "the identity provider's keys");
                let keys = Arc::new(KeySet::new(keys));
                Ok(Fetched { keys, document: document.into(), at })
            }
        });
        let (failed_before, failed) =
            (before.last_attempt.is_some_and(|last| last.failed), fetched.is_err());
        match &fetched {
            Err(error) if !failed_before => {
                let error = error as &dyn std::error::Error;
                let url = &self.settings.url;
                warn!(error, url, "the identity provider's keys cannot be fetched; trying again");
            }
            Ok(_) if failed_before => info!("the identity provider's keys can be fetched again"),
            _ => {}
        }
        let fetched = fetched.ok().or(before.fetched);
        self.state.send_replace(State { fetched, last_attempt: Some(Attempt { at, failed }) });
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

    /// A provider as it is at the moment; `None` is down.
    #[derive(Clone, Default)]
    struct Provider {
        document: Arc<Mutex<Option<String>>>,
        fetches: Arc<AtomicUsize>,
    }

    #[async_trait]
    impl JwksFetch for Provider {
        async fn fetch(&self) -> Result<String, PortError> {
            self.fetches.fetch_add(1, Ordering::SeqCst);
            // As long as a fetch takes, so that some come while it is under way.
            sleep(Duration::from_millis(100)).await;
            self.document.lock().clone().ok_or_else(|| PortError::unavailable("down"))
        }
    }

    impl Provider {
        fn publish(&self, keys: &[(&str, &Key)]) {
            let keys: Vec<_> = keys.iter().map(|(id, key)| key.jwk(id)).collect();
            *self.document.lock() = Some(json!({ "keys": keys }).to_string());
        }

        fn is_down(&self) {
            *self.document.lock() = None;
        }

        fn fetches(&self) -> usize {
            self.fetches.load(Ordering::SeqCst)
        }
    }

    struct Scene {
        provider: Provider,
        keys: Arc<RemoteKeys>,
        stop: CancellationToken,
        keeping: JoinHandle<()>,
    }

    impl Scene {
        fn with(provider: Provider, max_stale: Option<Duration>) -> Self {
            let usual = JwksSettings::new("https://id.example.org/keys");
            let settings = JwksSettings { max_stale, ..usual };
            let keys = RemoteKeys::new(settings, Box::new(provider.clone()), Accepted::default());
            let (keys, stop) = (Arc::new(keys), CancellationToken::new());
            let keeping = tokio::spawn({
                let (keys, stop) = (keys.clone(), stop.clone());
                async move { keys.keep(&stop).await }
            });
            Self { provider, keys, stop, keeping }
        }

        async fn publishing(keys: &[(&str, &Key)]) -> Self {
            let provider = Provider::default();
            provider.publish(keys);
            let scene = Self::with(provider, Some(Duration::from_hours(24)));
            sleep(Duration::from_secs(1)).await;
            scene
        }

        async fn open(&self, id: &str, key: &Key) -> Answer {
            let token = key.sign_named(id, &json!({ "sub": "ada" }));
            match self.keys.open(&SignedToken::read(&token).unwrap()).await {
                Ok(claims) => {
                    assert_eq!(claims["sub"], "ada");
                    Answer::Opened
                }
                Err(TokenError::Invalid(_)) => Answer::Invalid,
                Err(TokenError::Port(PortError::Unavailable(_))) => Answer::Unavailable,
                Err(other) => panic!("{other}"),
            }
        }
    }

    #[derive(Debug, PartialEq, Eq)]
    enum Answer {
        Opened,
        Invalid,
        Unavailable,
    }

    #[tokio::test(start_paused = true)]
    async fn a_known_key_is_no_reason_to_fetch() {
        let (one, two) = (Key::ed25519(), Key::p256());
        let scene = Scene::publishing(&[("1", &one), ("2", &two)]).await;
        for _ in 0..100 {
            assert_eq!(scene.open("1", &one).await, Answer::Opened);
            assert_eq!(scene.open("2", &two).await, Answer::Opened);
            assert_eq!(scene.open("1", &Key::ed25519()).await, Answer::Invalid);
        }
        assert_eq!(scene.provider.fetches(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_key_is_fetched_by_the_first_token_that_names_it() {
        let (old, new) = (Key::ed25519(), Key::ed25519());
        let scene = Scene::publishing(&[("old", &old)]).await;
        scene.provider.publish(&[("old", &old), ("new", &new)]);
        sleep(Duration::from_secs(20)).await;
        let (first, second) = tokio::join!(scene.open("new", &new), scene.open("new", &new));
        assert_eq!((first, second), (Answer::Opened, Answer::Opened));
        assert_eq!(scene.open("old", &old).await, Answer::Opened);
        assert_eq!(scene.provider.fetches(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn made_up_key_ids_cause_one_fetch_in_each_cooldown() {
        let (key, other) = (Key::ed25519(), Key::ed25519());
        let scene = Scene::publishing(&[("1", &key)]).await;
        let begin = Instant::now();
        let mut made_up = 0;
        while begin.elapsed() < Duration::from_mins(1) {
            assert_eq!(scene.open(&format!("x{made_up}"), &other).await, Answer::Invalid);
            made_up += 1;
            sleep(Duration::from_millis(10)).await;
        }
        assert!(made_up > 1_000, "{made_up}");
        let fetches = scene.provider.fetches();
        assert!((5..=7).contains(&fetches), "{fetches} fetches in a minute, ten seconds apart");
    }

    #[tokio::test(start_paused = true)]
    async fn keys_are_fetched_periodically_and_one_that_is_gone_is_not_believed() {
        let (old, new) = (Key::ed25519(), Key::ed25519());
        let scene = Scene::publishing(&[("old", &old)]).await;
        scene.provider.publish(&[("new", &new)]);
        assert_eq!(scene.open("old", &old).await, Answer::Opened);
        sleep(Duration::from_mins(5)).await;
        assert_eq!(scene.provider.fetches(), 2);
        assert_eq!(scene.open("old", &old).await, Answer::Invalid);
        assert_eq!(scene.open("new", &new).await, Answer::Opened);
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_that_is_down_at_first_is_waited_for() {
        let key = Key::ed25519();
        let scene = Scene::with(Provider::default(), None);
        assert_eq!(scene.open("1", &key).await, Answer::Unavailable);
        assert!(!scene.keys.are_known());
        sleep(Duration::from_mins(10)).await;
        let fetches = scene.provider.fetches();
        assert!((15..=30).contains(&fetches), "{fetches} attempts in ten minutes");
        scene.provider.publish(&[("1", &key)]);
        sleep(Duration::from_secs(31)).await;
        assert_eq!(scene.open("1", &key).await, Answer::Opened);
        assert!(scene.keys.are_known());
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_comes_before_the_first_fetch_is_done_waits_for_it() {
        let (provider, key) = (Provider::default(), Key::ed25519());
        provider.publish(&[("1", &key)]);
        let scene = Scene::with(provider, None);
        assert_eq!(scene.open("1", &key).await, Answer::Opened);
        assert_eq!(scene.provider.fetches(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_that_goes_down_signs_nobody_out_for_a_while() {
        let key = Key::ed25519();
        let scene = Scene::publishing(&[("1", &key)]).await;
        scene.provider.is_down();
        sleep(Duration::from_hours(23)).await;
        assert_eq!(scene.open("1", &key).await, Answer::Opened);
        assert!(scene.keys.are_known());
        // Whether the provider has a key of that name now cannot be told.
        assert_eq!(scene.open("2", &Key::ed25519()).await, Answer::Unavailable);
        sleep(Duration::from_hours(2)).await;
        assert_eq!(scene.open("1", &key).await, Answer::Unavailable);
        assert!(!scene.keys.are_known());

        scene.provider.publish(&[("1", &key)]);
        sleep(Duration::from_secs(31)).await;
        assert_eq!(scene.open("1", &key).await, Answer::Opened);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_bound_the_last_keys_stay_for_good() {
        let (provider, key) = (Provider::default(), Key::ed25519());
        provider.publish(&[("1", &key)]);
        let scene = Scene::with(provider, None);
        assert_eq!(scene.open("1", &key).await, Answer::Opened);
        scene.provider.is_down();
        sleep(Duration::from_hours(24 * 7)).await;
        assert_eq!(scene.open("1", &key).await, Answer::Opened);
    }

    #[tokio::test(start_paused = true)]
    async fn a_document_without_keys_takes_none_away() {
        let key = Key::ed25519();
        let scene = Scene::publishing(&[("1", &key)]).await;
        for document in ["", "{}", r#"{"keys":[]}"#, "<html>"] {
            *scene.provider.document.lock() = Some(document.to_owned());
            sleep(Duration::from_mins(6)).await;
            assert_eq!(scene.open("1", &key).await, Answer::Opened, "{document}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_when_told_to_also_during_a_pause() {
        let scene = Scene::publishing(&[("1", &Key::ed25519())]).await;
        scene.stop.cancel();
        timeout(Duration::from_secs(1), scene.keeping).await.unwrap().unwrap();
    }
}
