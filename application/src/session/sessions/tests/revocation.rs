//! Token revocation.

use std::sync::atomic::AtomicBool;

use async_trait::async_trait;

use super::*;
use crate::ports::revocations::MockRevocations;
use crate::ports::{PortError, Revocation, RevocationCursor, Revocations, TokenOwner};
use crate::revoked_tokens::ApplyRevocation as _;

fn claims_issued(name: &str, issued_at: i64) -> Claims {
    Claims { issued_at: Some(at(issued_at)), ..claims(name, 10_000) }
}

fn revocation(name: &str, issued_before: i64) -> Revocation {
    Revocation { owner: TokenOwner::User(user(name)), issued_before: at(issued_before) }
}

#[tokio::test(start_paused = true)]
async fn only_sessions_with_a_revoked_token_end() {
    let node = node();
    let mut devices = Vec::new();
    for (name, issued_at) in [("ada", 100), ("ada", 200), ("bob", 100)] {
        let device = FakeDevice::new();
        let session = node.join(claims_issued(name, issued_at), device.clone());
        connect(&node.sessions, &session, None).await;
        devices.push(device);
    }
    let stop = CancellationToken::new();
    let revoke = async {
        // Lets the first poll run. It finds no revocation.
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!(node.sessions.count(), 3);
        node.store.revoke(&revocation("ada", 200)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        stop.cancel();
    };
    tokio::join!(node.sessions.poll_revocations(node.store.clone(), stop.clone()), revoke);

    let closed: Vec<_> = devices.iter().map(FakeDevice::close_reason).collect();
    assert_eq!(closed, [Some(CloseReason::TokenRevoked), None, None]);
    assert!(matches!(
        devices[0].received().last(),
        Some(Push::Exception { code: "token_revoked", .. })
    ));
    assert_eq!(node.sessions.count(), 2);
}

#[tokio::test]
async fn token_revoked_between_sign_in_and_join_ends_the_session() {
    let node = node();
    node.sessions.sign_in.revoked().add(&revocation("ada", 200));
    let device = FakeDevice::new();
    node.join(claims_issued("ada", 100), device.clone());
    assert_eq!(device.close_reason(), Some(CloseReason::TokenRevoked));
    assert_eq!(node.sessions.count(), 0);
}

fn sessions_before_revocations_are_loaded() -> Sessions<FakeDevice> {
    let clock = Arc::new(ManualClock::at(0));
    let inboxes = Arc::new(InMemoryStore::new(epoch("e1")));
    let revoked = Arc::new(RevokedTokens::not_loaded());
    let tokens = Arc::new(FakeTokenVerifier);
    Sessions::new(
        SignIn::new(tokens, clock.clone(), revoked, Access::default()),
        CatchUp::new(inboxes, 100),
        Arc::new(UnlimitedWork),
        clock,
        SessionSettings::default(),
    )
}

async fn sign_in_code(sessions: &Sessions<FakeDevice>) -> &'static str {
    match sessions.sign_in(BearerToken::parse("ada:10000").unwrap()).await {
        Ok(_) => "accepted",
        Err(error) => error.code(),
    }
}

/// Returns a revocation on the first read and none on later reads, as if it had been purged. A read takes a
/// millisecond.
#[derive(Default)]
struct PurgedStore(AtomicBool);

#[async_trait]
impl Revocations for PurgedStore {
    async fn revoke(&self, _: &Revocation) -> Result<Revocation, PortError> {
        unimplemented!("only read")
    }

    async fn since(
        &self,
        _: Option<RevocationCursor>,
    ) -> Result<(Vec<Revocation>, RevocationCursor), PortError> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let is_purged = self.0.swap(true, Ordering::SeqCst);
        let stored = if is_purged { vec![] } else { vec![revocation("ada", 200)] };
        Ok((stored, RevocationCursor(0)))
    }
}

#[tokio::test(start_paused = true)]
async fn revocation_that_was_purged_from_the_store_is_forgotten_after_ten_minutes() {
    let sessions = sessions_before_revocations_are_loaded();
    let stop = CancellationToken::new();
    let check = async {
        sessions.revocations_loaded().await;
        assert_eq!(sign_in_code(&sessions).await, "token_revoked");
        tokio::time::sleep(Duration::from_mins(9)).await;
        assert_eq!(sign_in_code(&sessions).await, "token_revoked");
        tokio::time::sleep(Duration::from_mins(2)).await;
        assert_eq!(sign_in_code(&sessions).await, "accepted");
        stop.cancel();
    };
    let store = Arc::new(PurgedStore::default());
    tokio::join!(sessions.poll_revocations(store, stop.clone()), check);
}

#[tokio::test(start_paused = true)]
async fn revocations_are_loaded_after_an_outage() {
    let mut store = MockRevocations::new();
    let mut polls = 0;
    store.expect_since().returning(move |_| {
        polls += 1;
        match polls {
            1 | 2 => Err(PortError::unavailable("down")),
            _ => Ok((vec![revocation("ada", 200)], RevocationCursor(0))),
        }
    });
    let sessions = sessions_before_revocations_are_loaded();
    let stop = CancellationToken::new();
    let check = async {
        assert_eq!(sign_in_code(&sessions).await, "unavailable");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(sign_in_code(&sessions).await, "token_revoked");
        stop.cancel();
    };
    tokio::join!(sessions.poll_revocations(Arc::new(store), stop.clone()), check);
}

#[tokio::test]
async fn applied_revocation_ends_sessions_without_a_poll() {
    let node = node();
    let everyone = Revocation { owner: TokenOwner::Everyone, issued_before: at(200) };
    for (applied, expected) in
        [(revocation("ada", 200), [true, false, false]), (everyone, [true, true, false])]
    {
        let devices = [("ada", 100), ("bob", 100), ("cy", 200)].map(|(name, issued_at)| {
            let device = FakeDevice::new();
            node.join(claims_issued(name, issued_at), device.clone());
            device
        });
        node.sessions.apply(&applied).await;
        let closed = devices.map(|device| device.close_reason() == Some(CloseReason::TokenRevoked));
        assert_eq!(closed, expected, "{applied:?}");
    }
}
