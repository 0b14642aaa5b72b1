//! Tests of [`Sessions`]. This file has their shared fixtures.

mod access;
mod catch_up;
mod delivery;
mod drain;
mod erasure;
mod expiry;
mod key_withdrawal;
mod limits;
mod revocation;
mod slow_devices;

use belfry_domain::{Change, Data, DomainEvent, Draft, Receipt, Revision, UnreadCount};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::access::Access;
use crate::ports::{Erasure as _, InboxRepository, TokenVerifier};
use crate::revoked_tokens::RevokedTokens;
use crate::testing::{
    FakeDevice, FakeTokenVerifier, InMemoryStore, ManualClock, UnlimitedWork, a_draft, at, claims,
    epoch, id, user,
};
use crate::use_cases::ResumePoint;

struct Node {
    sessions: Sessions<FakeDevice>,
    store: Arc<InMemoryStore>,
    clock: Arc<ManualClock>,
}

fn node() -> Node {
    let store = Arc::new(InMemoryStore::new(epoch("e1")));
    let clock = Arc::new(ManualClock::at(0));
    Node { sessions: new_sessions(store.clone(), &clock), store, clock }
}

fn new_sessions<D: Device>(
    store: Arc<dyn InboxRepository>,
    clock: &Arc<ManualClock>,
) -> Sessions<D> {
    new_sessions_with(store, clock, Arc::new(UnlimitedWork), Arc::new(FakeTokenVerifier))
}

fn new_sessions_with<D: Device>(
    store: Arc<dyn InboxRepository>,
    clock: &Arc<ManualClock>,
    work: Arc<dyn WorkBudget>,
    tokens: Arc<dyn TokenVerifier>,
) -> Sessions<D> {
    Sessions::new(
        SignIn::new(tokens, clock.clone(), Arc::new(RevokedTokens::empty()), Access::default()),
        CatchUp::new(store, 100),
        work,
        clock.clone(),
        SessionSettings { max_held: 4, ..SessionSettings::default() },
    )
}

fn join(
    sessions: &Sessions<FakeDevice>,
    claims: Claims,
    device: FakeDevice,
) -> Arc<Session<FakeDevice>> {
    sessions.join(sessions.admit(claims).unwrap(), device)
}

/// The calls of a transport after `join`, except for confirming the connect to the client.
async fn connect<D: Device>(
    sessions: &Sessions<D>,
    session: &Arc<Session<D>>,
    resume: Option<ResumePoint>,
) {
    let plan = sessions.prepare(session, resume).await.unwrap();
    sessions.start(session, plan).await;
}

impl Node {
    fn join(&self, claims: Claims, device: FakeDevice) -> Arc<Session<FakeDevice>> {
        join(&self.sessions, claims, device)
    }

    /// Stores a notification for `name` and returns its batch, not yet delivered.
    async fn store_notification(&self, name: &str, id: &str) -> PushBatch {
        let receipts = self.store.create(vec![a_draft(name, id)]).await.unwrap();
        match receipts.into_iter().next() {
            Some(Receipt::Created(event)) => PushBatch::of(event),
            other => panic!("not created: {other:?}"),
        }
    }

    /// Erases `name` and returns the batch of the event, not yet delivered.
    async fn erase(&self, name: &str) -> PushBatch {
        assert!(self.store.erase(&user(name)).await.unwrap().inbox);
        let revision = self.store.state(&user(name)).await.unwrap().revision;
        let change = Change::Erased { epoch: epoch("e1") };
        PushBatch::of(DomainEvent { user: user(name), revision, unread: UnreadCount::ZERO, change })
    }

    fn room(name: &str) -> UserRoom {
        UserRoom::of(user(name))
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the type of the parameter")]
fn since(revision: u64) -> Option<ResumePoint> {
    Some(ResumePoint { since: Revision::new(revision), epoch: Some(epoch("e1")) })
}

/// A draft with 15,000 bytes of data. 17 of them fit into a replay page of 256 KiB.
fn large_draft(name: &str, n: usize) -> Draft {
    let data = Data::from_valid_json("x".repeat(15_000)).unwrap();
    Draft { data: Some(data), ..a_draft(name, &format!("n{n}")) }
}
