use belfry_domain::{Data, Draft, InboxState, Revision, UnreadCount};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::access::{Access, Action};
use crate::ports::inbox_repository::MockInboxRepository;
use crate::ports::revocations::MockRevocations;
use crate::ports::{History, InboxRepository, Retention as _, TokenVerifier};
use crate::ports::{Mark, PortError, Revocation, Revocations as _};
use crate::push::Push;
use crate::revoked_tokens::RevokedTokens;
use crate::testing::{
    FakeDevice, FakeTokens, InMemoryStore, ManualClock, a_draft, at, claims, epoch, id, user,
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
    Node { sessions: sessions(store.clone(), &clock), store, clock }
}

fn sessions<D: Device>(store: Arc<dyn InboxRepository>, clock: &Arc<ManualClock>) -> Sessions<D> {
    let tokens: Arc<dyn TokenVerifier> = Arc::new(FakeTokens);
    Sessions::new(
        SignIn::new(tokens, clock.clone(), Arc::new(RevokedTokens::none()), Access::default()),
        CatchUp::new(store, 100),
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

/// What a transport does once a device has joined; telling the client that it is connected is left out.
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

    /// Stores a notification for `name` and answers what there is to tell of it.
    async fn happens(&self, name: &str, id: &str) -> PushBatch {
        let receipts = self.store.create(vec![a_draft(name, id)]).await.unwrap();
        match receipts.into_iter().next() {
            Some(belfry_domain::Receipt::Taken(event)) => PushBatch::of(event),
            other => panic!("not taken: {other:?}"),
        }
    }

    fn room(name: &str) -> UserRoom {
        UserRoom::of(user(name))
    }
}

#[expect(clippy::unnecessary_wraps, reason = "as sessions take it")]
fn since(revision: u64) -> Option<ResumePoint> {
    Some(ResumePoint { since: Revision::new(revision), epoch: Some(epoch("e1")) })
}

#[tokio::test]
async fn only_the_users_own_devices_are_told() {
    let node = node();
    let mut devices = Vec::new();
    for name in ["ada", "ada", "bob"] {
        let device = FakeDevice::new();
        let session = node.join(claims(name, 10_000), device.clone());
        connect(&node.sessions, &session, None).await;
        devices.push(device);
    }
    let announcement = node.happens("ada", "n1").await;
    assert_eq!(node.sessions.deliver(&Node::room("ada"), &announcement), 2);
    assert_eq!(devices[0].heard_ids(), ["n1"]);
    assert_eq!(devices[1].heard_ids(), ["n1"]);
    assert_eq!(devices[2].heard_ids(), [""; 0]);
}

/// Takes everything and keeps nothing.
struct Forgetful;

impl Device for Forgetful {
    type Frame = String;

    fn frame(push: &Push) -> String {
        format!("{push:?}")
    }

    fn send(&self, _: &String) -> Result<(), SendError> {
        Ok(())
    }

    fn queued(&self) -> usize {
        0
    }

    fn close(&self, why: CloseReason) {
        panic!("sent away: {}", why.as_str());
    }
}

#[tokio::test]
async fn what_is_told_is_made_once_for_all_devices_in_the_room() {
    let mut allocations = Vec::new();
    for devices in [1, 2, 100] {
        let Node { store, clock, .. } = node();
        let sessions: Sessions<Forgetful> = sessions(store, &clock);
        for name in ["ada", "bob"] {
            for _ in 0..devices {
                let admission = sessions.admit(claims(name, 10_000)).unwrap();
                let session = sessions.join(admission, Forgetful);
                connect(&sessions, &session, None).await;
            }
        }
        let announcement = node().happens("ada", "n1").await;
        let told = allocation_counter::measure(|| {
            assert_eq!(sessions.deliver(&Node::room("ada"), &announcement), devices);
        });
        allocations.push(told.count_total);
    }
    assert!(allocations[0] > 0);
    assert_eq!(allocations, [allocations[0]; 3]);
}

#[tokio::test]
async fn what_happens_during_the_replay_is_told_after_it_and_once() {
    let node = node();
    node.happens("ada", "n1").await;
    let device = FakeDevice::new();
    let session = node.join(claims("ada", 10_000), device.clone());

    // The second is stored and announced before the replay is read, the third after.
    let second = node.happens("ada", "n2").await;
    node.sessions.deliver(&Node::room("ada"), &second);
    assert_eq!(device.heard_ids(), [""; 0]);
    connect(&node.sessions, &session, since(0)).await;
    node.sessions.deliver(&Node::room("ada"), &second);
    let third = node.happens("ada", "n3").await;
    node.sessions.deliver(&Node::room("ada"), &third);

    assert!(matches!(device.heard()[0], Push::Sync(_)));
    assert_eq!(device.heard_ids(), ["n1", "n2", "n3"]);
}

#[tokio::test]
async fn a_device_overtaken_while_it_catches_up_gets_the_rest_from_the_store() {
    let node = node();
    let device = FakeDevice::new();
    let session = node.join(claims("ada", 10_000), device.clone());
    for n in 0..10 {
        // More than the gate holds; the store knows them all.
        let announcement = node.happens("ada", &format!("n{n}")).await;
        node.sessions.deliver(&Node::room("ada"), &announcement);
    }
    connect(&node.sessions, &session, since(0)).await;
    let expected: Vec<_> = (0..10).map(|n| format!("n{n}")).collect();
    assert_eq!(device.heard_ids(), expected);
    assert_eq!(device.closed(), None);
}

#[tokio::test]
async fn a_device_that_asks_again_gets_what_it_names() {
    let node = node();
    node.happens("ada", "n1").await;
    let device = FakeDevice::new();
    let session = node.join(claims("ada", 10_000), device.clone());
    assert!(matches!(node.sessions.sync(&session, None).await, Err(NotSynced::UnderWay)));
    connect(&node.sessions, &session, None).await;
    let sync = node.sessions.sync(&session, since(0)).await.unwrap();
    assert_eq!(sync.missed, 1);
    assert_eq!(device.heard_ids(), ["n1"]);
    let next = node.happens("ada", "n2").await;
    node.sessions.deliver(&Node::room("ada"), &next);
    assert_eq!(device.heard_ids(), ["n1", "n2"]);
}

#[tokio::test]
async fn a_device_that_does_not_read_is_sent_away_and_others_are_told() {
    let node = node();
    let (slow, quick) = (FakeDevice::with_room_for(1), FakeDevice::new());
    for device in [&slow, &quick] {
        let session = node.join(claims("ada", 10_000), device.clone());
        connect(&node.sessions, &session, None).await;
    }
    let announcement = node.happens("ada", "n1").await;
    assert_eq!(node.sessions.deliver(&Node::room("ada"), &announcement), 1);
    assert_eq!(slow.closed(), Some(CloseReason::TooSlow));
    assert_eq!(quick.heard_ids(), ["n1"]);
}

/// The bytes of text of all notifications that a device was sent.
fn sent_bytes(device: &FakeDevice) -> usize {
    let new = |push: &Push| match push {
        Push::New(one) => one.text_bytes(),
        _ => 0,
    };
    device.heard().iter().map(new).sum()
}

fn large_draft(name: &str, n: usize) -> Draft {
    let data = Data::of_checked_syntax("x".repeat(15_000)).unwrap();
    Draft { data: Some(data), ..a_draft(name, &format!("n{n}")) }
}

#[tokio::test(start_paused = true)]
async fn a_device_that_does_not_read_costs_one_page_and_is_disconnected() {
    let node = node();
    node.store.create((0..100).map(|n| large_draft("ada", n)).collect()).await.unwrap();
    let device = FakeDevice::with_room_for(10_000);
    let session = node.join(claims("ada", 10_000), device.clone());
    let begin = tokio::time::Instant::now();
    connect(&node.sessions, &session, since(0)).await;
    assert_eq!(device.closed(), Some(CloseReason::TooSlow));
    let waited = begin.elapsed();
    assert!(waited >= Duration::from_secs(15) && waited < Duration::from_secs(16), "{waited:?}");
    let queued = sent_bytes(&device);
    assert!((200_000..=256 * 1024).contains(&queued), "{queued}");
}

#[tokio::test(start_paused = true)]
async fn a_device_gets_the_next_page_when_it_has_read_the_one_before() {
    let node = node();
    node.store.create((0..40).map(|n| large_draft("ada", n)).collect()).await.unwrap();
    let device = FakeDevice::with_room_for(10_000);
    let session = node.join(claims("ada", 10_000), device.clone());
    let reading = async {
        let mut pages = Vec::new();
        while device.heard_ids().len() < 40 {
            tokio::time::sleep(Duration::from_secs(10)).await;
            pages.push(device.heard_ids().len());
            // All but one: it is not done with the page.
            device.read_frames(device.queued() - 1);
            tokio::time::sleep(Duration::from_secs(10)).await;
            assert_eq!(device.heard_ids().len(), *pages.last().unwrap());
            device.read();
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        device.read();
        pages
    };
    let ((), pages) = tokio::join!(connect(&node.sessions, &session, since(0)), reading);
    assert_eq!(pages, [17, 34, 40]);
    assert_eq!(device.closed(), None, "it reads something every ten seconds");
}

#[tokio::test(start_paused = true)]
async fn a_slow_device_catches_up_at_its_own_pace() {
    let node = node();
    for n in 0..20 {
        node.happens("ada", &format!("n{n}")).await;
    }
    let device = FakeDevice::with_room_for(3);
    let session = node.join(claims("ada", 10_000), device.clone());
    // The sync, 20 notifications and the count, each 14 seconds after the one before.
    let reading = async {
        for _ in 0..22 {
            tokio::time::sleep(Duration::from_secs(14)).await;
            device.read_frames(1);
        }
    };
    tokio::join!(connect(&node.sessions, &session, since(0)), reading);
    assert_eq!(device.heard_ids().len(), 20);
    assert_eq!(device.closed(), None);
}

#[tokio::test(start_paused = true)]
async fn devices_of_one_user_take_turns_and_a_stuck_one_delays_the_next_by_a_second() {
    let node = node();
    for name in ["ada", "bob"] {
        node.happens(name, "n1").await;
    }
    let join = |name: &str, device: &FakeDevice| node.join(claims(name, 10_000), device.clone());
    let (stuck, next) = (FakeDevice::with_room_for(10), FakeDevice::new());
    let of_another_user = FakeDevice::new();
    let (first, second) = (join("ada", &stuck), join("ada", &next));
    let third = join("bob", &of_another_user);
    let look = async {
        tokio::time::sleep(Duration::from_millis(900)).await;
        assert_eq!(stuck.heard_ids(), ["n1"]);
        assert_eq!(next.heard().len(), 1, "the sync is not a page");
        assert_eq!(of_another_user.heard_ids(), ["n1"]);
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(next.heard_ids(), ["n1"]);
    };
    tokio::join!(
        connect(&node.sessions, &first, since(0)),
        connect(&node.sessions, &second, since(0)),
        connect(&node.sessions, &third, since(0)),
        look,
    );
    assert_eq!((stuck.closed(), next.closed()), (Some(CloseReason::TooSlow), None));
}

#[tokio::test]
async fn a_notification_after_connect_reaches_a_device_without_a_position() {
    let node = node();
    let before = node.happens("ada", "before").await;
    let device = FakeDevice::new();
    let session = node.join(claims("ada", 10_000), device.clone());
    let plan = node.sessions.prepare(&session, None).await.unwrap();
    // The client is told that it is connected. The first event was on its way.
    node.sessions.deliver(&Node::room("ada"), &before);
    let after = node.happens("ada", "after").await;
    node.sessions.deliver(&Node::room("ada"), &after);
    assert_eq!(device.heard(), []);
    node.sessions.start(&session, plan).await;

    let Push::Sync(sync) = &device.heard()[0] else { panic!("{:?}", device.heard()) };
    assert_eq!((sync.recovered, sync.revision.get(), sync.unread.get()), (false, 1, 1));
    assert_eq!(device.heard_ids(), ["after"]);
    let count = |push: &Push| matches!(push, Push::UnreadCount { count, .. } if count.get() == 2);
    assert!(device.heard().last().is_some_and(count));
}

#[tokio::test]
async fn a_connected_device_that_starts_over_still_hears_what_is_on_its_way() {
    let node = node();
    let device = FakeDevice::new();
    let session = node.join(claims("ada", 10_000), device.clone());
    connect(&node.sessions, &session, None).await;
    let on_its_way = node.happens("ada", "n1").await;
    let sync = node.sessions.sync(&session, None).await.unwrap();
    assert_eq!((sync.recovered, sync.revision.get(), sync.missed), (false, 1, 0));
    node.sessions.deliver(&Node::room("ada"), &on_its_way);
    assert_eq!(device.heard_ids(), ["n1"]);
}

#[tokio::test(start_paused = true)]
async fn a_device_starts_over_when_the_rest_of_its_replay_is_forgotten_meanwhile() {
    let node = node();
    node.store.create((0..40).map(|n| large_draft("ada", n)).collect()).await.unwrap();
    let deleted = Draft { id: id("deleted"), ..a_draft("ada", "deleted") };
    node.store.create(vec![deleted]).await.unwrap();
    node.store.delete(&user("ada"), &[id("deleted")], at(1)).await.unwrap();
    let device = FakeDevice::with_room_for(10_000);
    let session = node.join(claims("ada", 10_000), device.clone());
    let meanwhile = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(device.heard_ids().len(), 17);
        node.store.purge_deleted(at(2), 10).await.unwrap();
        let live = node.happens("ada", "live").await;
        node.sessions.deliver(&Node::room("ada"), &live);
        device.read();
    };
    tokio::join!(connect(&node.sessions, &session, since(0)), meanwhile);
    let syncs: Vec<_> = device
        .heard()
        .into_iter()
        .filter_map(|push| match push {
            Push::Sync(sync) => Some((sync.recovered, sync.revision.get(), sync.missed)),
            _ => None,
        })
        .collect();
    assert_eq!(syncs, [(true, 42, 40), (false, 42, 0)]);
    assert_eq!(device.heard_ids().len(), 18);
    assert_eq!(device.heard_ids().last().unwrap(), "live");
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_lost_while_a_device_catches_up_is_found_with_the_others() {
    let node = node();
    node.happens("ada", "n1").await;
    let device = FakeDevice::with_room_for(10);
    let session = node.join(claims("ada", 10_000), device.clone());
    let meanwhile = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        node.happens("ada", "lost").await;
        // The node learns that it may have missed events.
        node.sessions.catch_up_all().await;
        for _ in 0..10 {
            device.read();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::join!(connect(&node.sessions, &session, since(0)), meanwhile);
    assert_eq!(device.heard_ids(), ["n1", "lost"]);
}

#[tokio::test]
async fn a_device_is_not_prepared_while_the_store_is_down() {
    let mut store = MockInboxRepository::new();
    store.expect_epoch().returning(|| Err(PortError::unavailable("down")));
    let sessions = sessions(Arc::new(store), &Arc::new(ManualClock::at(0)));
    let device = FakeDevice::new();
    let session = join(&sessions, claims("ada", 10_000), device.clone());
    assert!(sessions.prepare(&session, None).await.is_err());
    assert_eq!(device.closed(), None, "the transport decides how to say so");
}

#[tokio::test]
async fn a_device_is_disconnected_when_a_page_of_what_it_missed_cannot_be_read() {
    let mut store = MockInboxRepository::new();
    store.expect_epoch().returning(|| Ok(epoch("e1")));
    let state = InboxState { revision: Revision::new(2), unread: UnreadCount::new(2) };
    store.expect_history().returning(move |_, _, _| Ok(History::Complete { state, created: 2 }));
    store.expect_created_in().returning(|_, _, _| Err(PortError::unavailable("down")));
    let sessions = sessions(Arc::new(store), &Arc::new(ManualClock::at(0)));
    let device = FakeDevice::new();
    let session = join(&sessions, claims("ada", 10_000), device.clone());
    connect(&sessions, &session, since(0)).await;
    assert_eq!(device.closed(), Some(CloseReason::NotCaughtUp));
}

#[tokio::test]
async fn a_session_is_warned_and_ends_with_its_token() {
    let node = node();
    let device = FakeDevice::new();
    let session = node.join(claims("ada", 100_000), device.clone());
    connect(&node.sessions, &session, None).await;

    node.clock.set(39_999);
    node.sessions.close_expired();
    assert_eq!(device.heard().len(), 1, "only the sync");
    for _ in 0..2 {
        node.clock.set(40_000);
        node.sessions.close_expired();
        assert!(matches!(device.heard()[1], Push::Expiring { .. }));
        assert_eq!(device.heard().len(), 2, "warned once");
    }
    assert!(node.sessions.authorize(&session, Action::ReadInbox).is_ok());

    node.clock.set(100_000);
    assert!(matches!(
        node.sessions.authorize(&session, Action::ReadInbox),
        Err(Refusal::TokenExpired)
    ));
    node.sessions.close_expired();
    assert!(matches!(device.heard()[2], Push::Exception { code: "token_expired", .. }));
    assert_eq!(device.closed(), Some(CloseReason::TokenExpired));
    assert_eq!(node.sessions.count(), 0);
}

#[tokio::test]
async fn a_short_token_is_warned_of_half_way() {
    let node = node();
    let device = FakeDevice::new();
    let session = node.join(claims("ada", 8_000), device.clone());
    connect(&node.sessions, &session, None).await;
    for (at, heard) in [(3_999, 1), (4_000, 2), (7_999, 2)] {
        node.clock.set(at);
        node.sessions.close_expired();
        assert_eq!(device.heard().len(), heard, "at {at}");
    }
    assert!(matches!(device.heard()[1], Push::Expiring { .. }));
    node.clock.set(8_000);
    node.sessions.close_expired();
    assert_eq!(device.closed(), Some(CloseReason::TokenExpired));
}

#[tokio::test]
async fn a_session_goes_on_with_a_newer_token_of_the_same_user() {
    let node = node();
    let device = FakeDevice::new();
    let session = node.join(claims("ada", 1_000), device.clone());
    connect(&node.sessions, &session, None).await;

    let other = node.sessions.refresh(&session, BearerToken::parse("bob:9000").unwrap()).await;
    assert!(matches!(other, Err(Refusal::OtherUser)));
    node.sessions.refresh(&session, BearerToken::parse("ada:500000").unwrap()).await.unwrap();

    node.clock.set(1_000);
    node.sessions.close_expired();
    assert_eq!(device.closed(), None);
    node.clock.set(500_000);
    node.sessions.close_expired();
    assert_eq!(device.closed(), Some(CloseReason::TokenExpired));
}

#[tokio::test]
async fn a_device_that_left_leaves_nothing_behind() {
    let node = node();
    let session = node.join(claims("ada", 10_000), FakeDevice::new());
    let weak = Arc::downgrade(&session);
    node.sessions.leave(&session);
    node.sessions.leave(&session);
    drop(session);
    assert_eq!(node.sessions.count(), 0);
    assert_eq!(weak.strong_count() + weak.weak_count(), 0, "neither in a room nor in a deadline");
}

/// Runs `during` while those that fall behind are let catch up.
async fn while_catching_up<T>(node: &Node, during: impl Future<Output = T>) -> T {
    let stop = CancellationToken::new();
    let done = async {
        let done = during.await;
        stop.cancel();
        done
    };
    tokio::join!(node.sessions.catch_up_lagging(stop.clone()), done).1
}

#[tokio::test]
async fn what_was_lost_on_its_way_is_made_good_by_the_next_announcement() {
    let node = node();
    let device = FakeDevice::new();
    let session = node.join(claims("ada", 10_000), device.clone());
    connect(&node.sessions, &session, None).await;

    let first = node.happens("ada", "n1").await;
    node.sessions.deliver(&Node::room("ada"), &first);
    node.happens("ada", "lost").await;
    let third = node.happens("ada", "n3").await;
    while_catching_up(&node, async {
        node.sessions.deliver(&Node::room("ada"), &third);
        while device.heard_ids().len() < 3 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let fourth = node.happens("ada", "n4").await;
    node.sessions.deliver(&Node::room("ada"), &fourth);
    assert_eq!(device.heard_ids(), ["n1", "lost", "n3", "n4"]);
    assert_eq!(device.closed(), None);
}

#[tokio::test]
async fn after_a_gap_all_devices_catch_up_and_those_that_missed_nothing_hear_nothing() {
    let node = node();
    let mut devices = Vec::new();
    for name in ["ada", "bob"] {
        let device = FakeDevice::new();
        let session = node.join(claims(name, 10_000), device.clone());
        connect(&node.sessions, &session, None).await;
        devices.push(device);
    }
    node.happens("ada", "lost").await;
    while_catching_up(&node, async {
        node.sessions.catch_up_all().await;
        while devices[0].heard_ids().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(devices[0].heard_ids(), ["lost"]);
    assert_eq!(devices[1].heard().len(), 1, "only the sync when it came");
}

fn issued(name: &str, issued_at: i64) -> Claims {
    Claims { issued_at: Some(at(issued_at)), ..claims(name, 10_000) }
}

#[tokio::test(start_paused = true)]
async fn sessions_end_when_their_token_is_revoked_and_others_stay() {
    let node = node();
    let mut devices = Vec::new();
    for claims in [issued("ada", 100), issued("ada", 200), issued("bob", 100)] {
        let device = FakeDevice::new();
        let session = node.join(claims, device.clone());
        connect(&node.sessions, &session, None).await;
        devices.push(device);
    }
    let stop = CancellationToken::new();
    let revoked = async {
        // It has read that there is none by then.
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!(node.sessions.count(), 3);
        let revocation = Revocation { user: user("ada"), issued_before: at(200) };
        node.store.revoke(&revocation).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        stop.cancel();
    };
    tokio::join!(node.sessions.poll_revocations(node.store.clone(), stop.clone()), revoked);

    let closed: Vec<_> = devices.iter().map(FakeDevice::closed).collect();
    assert_eq!(closed, [Some(CloseReason::TokenRevoked), None, None]);
    assert!(matches!(
        devices[0].heard().last(),
        Some(Push::Exception { code: "token_revoked", .. })
    ));
    assert_eq!(node.sessions.count(), 2);
}

#[tokio::test]
async fn a_device_whose_token_is_revoked_on_its_way_in_does_not_stay() {
    let node = node();
    let revocation = Revocation { user: user("ada"), issued_before: at(200) };
    node.sessions.sign_in.revoked().learn(&revocation);
    let device = FakeDevice::new();
    node.join(issued("ada", 100), device.clone());
    assert_eq!(device.closed(), Some(CloseReason::TokenRevoked));
    assert_eq!(node.sessions.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn revocations_are_learned_once_the_store_answers() {
    let mut store = MockRevocations::new();
    let mut calls = 0;
    store.expect_since().returning(move |_| {
        calls += 1;
        match calls {
            1..3 => Err(PortError::unavailable("down")),
            _ => Ok((vec![Revocation { user: user("ada"), issued_before: at(200) }], Mark(0))),
        }
    });
    let clock = Arc::new(ManualClock::at(0));
    let inboxes = Arc::new(InMemoryStore::new(epoch("e1")));
    let revoked = Arc::new(RevokedTokens::unknown());
    let tokens = Arc::new(FakeTokens);
    let sessions: Sessions<FakeDevice> = Sessions::new(
        SignIn::new(tokens, clock.clone(), revoked, Access::default()),
        CatchUp::new(inboxes, 100),
        clock,
        SessionSettings::default(),
    );
    let code = async || match sessions.sign_in(BearerToken::parse("ada:10000").unwrap()).await {
        Ok(_) => "in",
        Err(refusal) => refusal.code(),
    };
    let stop = CancellationToken::new();
    let look = async {
        assert_eq!(code().await, "unavailable");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(code().await, "token_revoked");
        stop.cancel();
    };
    tokio::join!(sessions.poll_revocations(Arc::new(store), stop.clone()), look);
}

fn limited(per_user: usize, on_excess: ExcessPolicy) -> Node {
    let mut node = node();
    node.sessions.settings.limit = Some(SessionLimit { per_user, on_excess });
    node
}

#[tokio::test]
async fn one_session_too_many_sends_the_oldest_away_for_good() {
    let node = limited(2, ExcessPolicy::EvictOldest);
    let bobs = FakeDevice::new();
    node.join(claims("bob", 10_000), bobs.clone());
    let devices = [(); 4].map(|()| FakeDevice::new());
    let sessions =
        devices.each_ref().map(|device| node.join(claims("ada", 10_000), device.clone()));
    let gone = Some(CloseReason::TooManySessions);
    assert_eq!(devices.each_ref().map(FakeDevice::closed), [gone, gone, None, None]);
    assert!(!CloseReason::TooManySessions.should_reconnect());
    let [said] = &*devices[0].heard() else { panic!("{:?}", devices[0].heard()) };
    assert!(matches!(said, Push::Exception { code: TooManySessions::CODE, .. }));
    assert_eq!((node.sessions.count(), bobs.closed()), (3, None));

    // Nothing is kept of those that went: neither their places, nor a time to look at them.
    node.sessions.leave(&sessions[0]);
    node.sessions.leave(&sessions[3]);
    let next = FakeDevice::new();
    node.join(claims("ada", 10_000), next.clone());
    assert_eq!((devices[2].closed(), next.closed()), (None, None));
    node.clock.set(10_000);
    node.sessions.close_expired();
    assert_eq!(devices[0].heard().len(), 1);
}

#[tokio::test]
async fn where_new_ones_are_refused_a_place_is_taken_from_the_admission_on() {
    let node = limited(2, ExcessPolicy::RejectNewest);
    let admit = |name: &str| node.sessions.admit(claims(name, 10_000));
    let first = node.join(claims("ada", 10_000), FakeDevice::new());
    let second = admit("ada").unwrap();
    assert_eq!(admit("ada").unwrap_err(), TooManySessions);
    assert!(admit("bob").is_ok());
    // A place that is only kept is nobody to tell.
    let bobs = admit("bob").unwrap();
    assert_eq!(node.sessions.deliver(&Node::room("bob"), &node.happens("bob", "n1").await), 0);
    drop(bobs);

    let device = FakeDevice::new();
    node.sessions.join(second, device.clone());
    assert_eq!(admit("ada").unwrap_err(), TooManySessions);
    node.sessions.leave(&first);
    node.sessions.leave(&first);
    let again = admit("ada").unwrap();
    assert_eq!(admit("ada").unwrap_err(), TooManySessions);
    drop(again);
    drop(admit("ada").unwrap());
    assert_eq!((device.closed(), node.sessions.count()), (None, 1));
    assert_eq!(node.sessions.rooms.count(), 1, "a room that nobody is in or comes to is gone");
}

#[test]
fn the_number_of_sessions_is_exact_when_many_come_at_once() {
    const LIMIT: usize = 5;
    for over in [ExcessPolicy::EvictOldest, ExcessPolicy::RejectNewest] {
        let node = limited(LIMIT, over);
        let devices: Vec<_> = (0..8 * 50).map(|_| FakeDevice::new()).collect();
        std::thread::scope(|scope| {
            for devices in devices.chunks(50) {
                let node = &node;
                scope.spawn(move || {
                    for device in devices {
                        if let Ok(admission) = node.sessions.admit(claims("ada", 10_000)) {
                            node.sessions.join(admission, device.clone());
                        }
                        assert!(node.sessions.count() <= LIMIT);
                    }
                });
            }
        });
        assert_eq!(node.sessions.count(), LIMIT, "{over:?}");
        let closed = devices.iter().filter(|device| device.closed().is_some()).count();
        let expected = if over == ExcessPolicy::EvictOldest { devices.len() - LIMIT } else { 0 };
        assert_eq!(closed, expected, "{over:?}");
    }
}
