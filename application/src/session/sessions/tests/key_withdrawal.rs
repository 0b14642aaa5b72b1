//! Sessions end when the keys of their tokens are withdrawn.

use std::collections::HashSet;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::*;
use crate::ports::{KeyFingerprint, TokenError};

const KEYS: [KeyFingerprint; 2] = [KeyFingerprint([0; 16]), KeyFingerprint([1; 16])];

/// Verifies like [`FakeTokenVerifier`]; its accepted keys can be changed.
struct ChangingKeys(Mutex<HashSet<KeyFingerprint>>);

#[async_trait]
impl TokenVerifier for ChangingKeys {
    async fn verify(&self, token: &BearerToken) -> Result<Claims, TokenError> {
        FakeTokenVerifier.verify(token).await
    }

    fn accepted_keys(&self) -> HashSet<KeyFingerprint> {
        self.0.lock().clone()
    }
}

fn node_with_keys() -> (Arc<ChangingKeys>, Sessions<FakeDevice>) {
    let store = Arc::new(InMemoryStore::new(epoch("e1")));
    let keys = Arc::new(ChangingKeys(Mutex::new(KEYS.into())));
    let clock = Arc::new(ManualClock::at(0));
    let sessions = new_sessions_with(store, &clock, Arc::new(UnlimitedWork), keys.clone());
    (keys, sessions)
}

fn claims_by(key: KeyFingerprint) -> Claims {
    Claims { key, ..claims("ada", 10_000) }
}

#[tokio::test(start_paused = true)]
async fn session_ends_when_its_key_is_withdrawn() {
    let (keys, sessions) = node_with_keys();
    let devices = KEYS.map(|key| {
        let device = FakeDevice::new();
        join(&sessions, claims_by(key), device.clone());
        device
    });
    let closed = || devices.each_ref().map(FakeDevice::close_reason);
    let stop = CancellationToken::new();
    let change = async {
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        assert_eq!(closed(), [None, None]);
        keys.0.lock().remove(&KEYS[0]);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(closed(), [Some(CloseReason::KeyWithdrawn), None]);
        keys.0.lock().clear();
        tokio::time::sleep(Duration::from_secs(2)).await;
        stop.cancel();
    };
    tokio::join!(sessions.run_key_withdrawal(stop.clone()), change);
    assert_eq!(closed(), [Some(CloseReason::KeyWithdrawn); 2]);
    let last = devices[0].received().pop();
    assert!(matches!(last, Some(Push::Exception { code: "key_withdrawn", .. })), "{last:?}");
}

#[tokio::test]
async fn key_withdrawn_between_sign_in_and_join_ends_the_session() {
    let (keys, sessions) = node_with_keys();
    keys.0.lock().remove(&KEYS[0]);
    let device = FakeDevice::new();
    join(&sessions, claims_by(KEYS[0]), device.clone());
    assert_eq!(device.close_reason(), Some(CloseReason::KeyWithdrawn));
    assert_eq!(sessions.count(), 0);
}

#[tokio::test]
async fn renewed_session_depends_on_the_key_of_the_new_token() {
    let (keys, sessions) = node_with_keys();
    let device = FakeDevice::new();
    let session = join(&sessions, claims_by(KEYS[1]), device.clone());
    // The fake verifier accepts every token with the first key.
    let token = BearerToken::parse("ada:20000").unwrap();
    sessions.refresh(&session, token.clone()).await.unwrap();
    keys.0.lock().remove(&KEYS[1]);
    sessions.disconnect_all_but(&keys.accepted_keys()).await;
    assert_eq!(device.close_reason(), None);
    keys.0.lock().clear();
    sessions.refresh(&session, token).await.unwrap();
    assert_eq!(device.close_reason(), Some(CloseReason::KeyWithdrawn));
}
