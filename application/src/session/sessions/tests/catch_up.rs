//! Devices catch up: on connect, on request, and after lost events.

use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;

use async_trait::async_trait;
use belfry_domain::{InboxState, UnreadCount, UserId};
use parking_lot::Mutex;

use super::*;
use crate::ports::inbox_repository::MockInboxRepository;
use crate::ports::{CatchUpCause, CatchUpMonitor, History, PortError, Retention as _};
use crate::session::sync_error::SyncError;

#[tokio::test]
async fn event_during_the_replay_is_delivered_once_and_after_it() {
    let node = node();
    node.store_notification("ada", "n1").await;
    let device = FakeDevice::new();
    let session = node.join(claims("ada", 10_000), device.clone());

    // The second event arrives twice: before the replay, which contains its change too, and after the replay.
    let second = node.store_notification("ada", "n2").await;
    node.sessions.deliver(&Node::room("ada"), &second);
    assert!(device.received().is_empty(), "the gate holds the event");
    connect(&node.sessions, &session, since(0)).await;
    node.sessions.deliver(&Node::room("ada"), &second);
    let third = node.store_notification("ada", "n3").await;
    node.sessions.deliver(&Node::room("ada"), &third);

    assert!(matches!(device.received()[0], Push::Sync(_)));
    assert_eq!(device.received_ids(), ["n1", "n2", "n3"]);
}

#[tokio::test]
async fn events_that_do_not_fit_into_the_gate_are_replayed_from_the_store() {
    let node = node();
    let device = FakeDevice::new();
    let session = node.join(claims("ada", 10_000), device.clone());
    // The gate can hold four batches.
    for n in 0..10 {
        let batch = node.store_notification("ada", &format!("n{n}")).await;
        node.sessions.deliver(&Node::room("ada"), &batch);
    }
    connect(&node.sessions, &session, since(0)).await;
    let expected: Vec<_> = (0..10).map(|n| format!("n{n}")).collect();
    assert_eq!(device.received_ids(), expected);
    assert_eq!(device.close_reason(), None);
}

#[tokio::test]
async fn sync_request_replays_from_the_requested_revision() {
    let node = node();
    node.store_notification("ada", "n1").await;
    let device = FakeDevice::new();
    let session = node.join(claims("ada", 10_000), device.clone());
    assert!(matches!(node.sessions.sync(&session, None).await, Err(SyncError::InProgress)));
    connect(&node.sessions, &session, None).await;
    let sync = node.sessions.sync(&session, since(0)).await.unwrap();
    assert_eq!(sync.missed, 1);
    assert_eq!(device.received_ids(), ["n1"]);
    let next = node.store_notification("ada", "n2").await;
    node.sessions.deliver(&Node::room("ada"), &next);
    assert_eq!(device.received_ids(), ["n1", "n2"]);
}

#[tokio::test]
async fn notification_after_connect_reaches_a_device_without_a_resume_point() {
    let node = node();
    let before = node.store_notification("ada", "before").await;
    let device = FakeDevice::new();
    let session = node.join(claims("ada", 10_000), device.clone());
    let plan = node.sessions.prepare(&session, None).await.unwrap();
    // A transport confirms the connect to the client here. The event of `before` arrives late.
    node.sessions.deliver(&Node::room("ada"), &before);
    let after = node.store_notification("ada", "after").await;
    node.sessions.deliver(&Node::room("ada"), &after);
    assert_eq!(device.received(), []);
    node.sessions.start(&session, plan).await;

    let Push::Sync(sync) = &device.received()[0] else { panic!("{:?}", device.received()) };
    assert_eq!(
        (sync.recovered, sync.revision.get(), sync.unread),
        (false, 1, Some(UnreadCount::new(1)))
    );
    assert_eq!(device.received_ids(), ["after"]);
    let count = |push: &Push| matches!(push, Push::UnreadCount { count, .. } if count.get() == 2);
    assert!(device.received().last().is_some_and(count));
}

#[tokio::test]
async fn connected_device_that_syncs_without_a_resume_point_receives_pending_events() {
    let node = node();
    let device = FakeDevice::new();
    let session = node.join(claims("ada", 10_000), device.clone());
    connect(&node.sessions, &session, None).await;
    // The change is in the store, but its event has not arrived yet.
    let pending = node.store_notification("ada", "n1").await;
    let sync = node.sessions.sync(&session, None).await.unwrap();
    assert_eq!((sync.recovered, sync.revision.get(), sync.missed), (false, 1, 0));
    node.sessions.deliver(&Node::room("ada"), &pending);
    assert_eq!(device.received_ids(), ["n1"]);
}

#[tokio::test]
async fn sync_request_with_a_resume_point_replays_pending_events_too() {
    let node = node();
    let device = FakeDevice::new();
    let session = node.join(claims("ada", 10_000), device.clone());
    connect(&node.sessions, &session, None).await;
    let first = node.store_notification("ada", "n1").await;
    node.sessions.deliver(&Node::room("ada"), &first);
    // The change is in the store, but its event has not arrived yet.
    node.store_notification("ada", "n2").await;
    let sync = node.sessions.sync(&session, since(0)).await.unwrap();
    assert_eq!((sync.recovered, sync.revision.get(), sync.missed), (true, 2, 2));
    assert_eq!(device.received_ids(), ["n1", "n1", "n2"]);
}

#[tokio::test(start_paused = true)]
async fn device_must_reload_its_list_when_the_history_is_purged_during_the_replay() {
    let node = node();
    node.store.create((0..40).map(|n| large_draft("ada", n)).collect()).await.unwrap();
    let deleted = Draft { id: id("deleted"), ..a_draft("ada", "deleted") };
    node.store.create(vec![deleted]).await.unwrap();
    node.store.delete(&user("ada"), &[id("deleted")], at(1)).await.unwrap();
    let device = FakeDevice::with_queue_of(10_000);
    let session = node.join(claims("ada", 10_000), device.clone());
    let meanwhile = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(device.received_ids().len(), 17, "only the first page was sent");
        node.store.purge_deleted(at(2), 10).await.unwrap();
        let live = node.store_notification("ada", "live").await;
        node.sessions.deliver(&Node::room("ada"), &live);
        device.read_all();
    };
    tokio::join!(connect(&node.sessions, &session, since(0)), meanwhile);
    let syncs: Vec<_> = device
        .received()
        .into_iter()
        .filter_map(|push| match push {
            Push::Sync(sync) => Some((sync.recovered, sync.revision.get(), sync.missed)),
            _ => None,
        })
        .collect();
    // 42 changes: 41 notifications were created and one was deleted.
    assert_eq!(syncs, [(true, 42, 40), (false, 42, 0)]);
    assert_eq!(device.received_ids().len(), 18);
    assert_eq!(device.received_ids().last().unwrap(), "live");
}

/// The kinds of the received pushes. A count is shown with its revision: `sync`, `new`, `count 2`.
fn kinds(device: &FakeDevice) -> Vec<String> {
    let kind = |push: &Push| match push {
        Push::Sync(_) => "sync".to_owned(),
        Push::New(_) => "new".to_owned(),
        Push::UnreadCount { revision, .. } => format!("count {}", revision.get()),
        other => format!("{other:?}"),
    };
    device.received().iter().map(kind).collect()
}

#[tokio::test]
async fn unread_count_is_sent_once_after_each_sync_and_its_replay() {
    let node = node();
    let device = FakeDevice::new();
    let session = node.join(claims("ada", 10_000), device.clone());
    connect(&node.sessions, &session, None).await;
    assert_eq!(kinds(&device), ["sync", "count 0"]);
    for n in ["n1", "n2"] {
        let batch = node.store_notification("ada", n).await;
        node.sessions.deliver(&Node::room("ada"), &batch);
    }
    node.sessions.sync(&session, since(1)).await.unwrap();
    let live = ["new", "count 1", "new", "count 2"];
    assert_eq!(kinds(&device)[2..], [&live[..], &["sync", "new", "count 2"]].concat());
    node.sessions.sync(&session, since(2)).await.unwrap();
    assert_eq!(kinds(&device)[9..], ["sync", "count 2"], "nothing was missed");
}

#[tokio::test]
async fn sync_in_forward_mode_has_no_count_and_reads_only_the_epoch() {
    let mut store = MockInboxRepository::new();
    store.expect_epoch().returning(|| Ok(epoch("e1")));
    let mut sessions = new_sessions(Arc::new(store), &Arc::new(ManualClock::at(0)));
    let mut only_epoch = MockInboxRepository::new();
    only_epoch.expect_epoch().returning(|| Ok(epoch("e1")));
    sessions.catch_up = CatchUp::for_forward_mode(Arc::new(only_epoch));
    let device = FakeDevice::new();
    let session = join(&sessions, claims("ada", 10_000), device.clone());
    connect(&sessions, &session, since(7)).await;
    let sync = sessions.sync(&session, since(7)).await.unwrap();
    assert_eq!((sync.unread, sync.recovered, sync.revision), (None, false, Revision::ZERO));
    assert_eq!(kinds(&device), ["sync", "sync"]);
    assert_eq!(device.received()[0], Push::Sync(sync));
}

#[tokio::test]
async fn prepare_fails_during_an_outage_and_does_not_close_the_device() {
    let mut store = MockInboxRepository::new();
    store.expect_epoch().returning(|| Err(PortError::unavailable("down")));
    let sessions = new_sessions(Arc::new(store), &Arc::new(ManualClock::at(0)));
    let device = FakeDevice::new();
    let session = join(&sessions, claims("ada", 10_000), device.clone());
    assert!(sessions.prepare(&session, None).await.is_err());
    assert_eq!(device.close_reason(), None, "the transport reports the failure to the client");
}

#[tokio::test]
async fn device_is_disconnected_when_a_page_cannot_be_read() {
    let mut store = MockInboxRepository::new();
    store.expect_epoch().returning(|| Ok(epoch("e1")));
    let state = InboxState { revision: Revision::new(2), unread: UnreadCount::new(2) };
    store.expect_history().returning(move |_, _, _| Ok(History::Complete { state, created: 2 }));
    store.expect_created_in().returning(|_, _, _| Err(PortError::unavailable("down")));
    let sessions = new_sessions(Arc::new(store), &Arc::new(ManualClock::at(0)));
    let device = FakeDevice::new();
    let session = join(&sessions, claims("ada", 10_000), device.clone());
    connect(&sessions, &session, since(0)).await;
    assert_eq!(device.close_reason(), Some(CloseReason::NotCaughtUp));
}

#[tokio::test]
async fn device_is_disconnected_when_events_are_lost_during_each_replay() {
    let (mut store, slot) = (MockInboxRepository::new(), Arc::new(OnceLock::new()));
    let joined: Arc<OnceLock<Arc<Session<FakeDevice>>>> = slot.clone();
    store.expect_epoch().returning(|| Ok(epoch("e1")));
    // One read for the plan, and one for each of the eight replays that are allowed.
    store.expect_history().times(9).returning(move |_, _, _| {
        joined.get().unwrap().report_loss();
        Ok(History::Complete { state: InboxState::default(), created: 0 })
    });
    let sessions = new_sessions(Arc::new(store), &Arc::new(ManualClock::at(0)));
    let device = FakeDevice::new();
    let session = join(&sessions, claims("ada", 10_000), device.clone());
    slot.set(session.clone()).unwrap();
    connect(&sessions, &session, since(0)).await;
    assert_eq!(device.close_reason(), Some(CloseReason::TooSlow));
}

/// Runs `task`, and concurrently the task that brings lagging devices up to date.
async fn while_catching_up<T>(node: &Node, task: impl Future<Output = T>) -> T {
    let stop = CancellationToken::new();
    let task = async {
        let result = task.await;
        stop.cancel();
        result
    };
    tokio::join!(node.sessions.catch_up_lagging(stop.clone()), task).1
}

#[tokio::test(start_paused = true)]
async fn event_lost_during_the_replay_is_replayed_too() {
    let node = node();
    node.store_notification("ada", "n1").await;
    let device = FakeDevice::with_queue_of(10);
    let session = node.join(claims("ada", 10_000), device.clone());
    let meanwhile = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        node.store_notification("ada", "lost").await;
        // Called after an interruption of the event stream, when events may have been lost.
        node.sessions.catch_up_all().await;
        for _ in 0..10 {
            device.read_all();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::join!(connect(&node.sessions, &session, since(0)), meanwhile);
    assert_eq!(device.received_ids(), ["n1", "lost"]);
}

#[tokio::test]
async fn lost_event_is_replayed_when_the_next_one_arrives() {
    let node = node();
    let device = FakeDevice::new();
    let session = node.join(claims("ada", 10_000), device.clone());
    connect(&node.sessions, &session, None).await;

    let first = node.store_notification("ada", "n1").await;
    node.sessions.deliver(&Node::room("ada"), &first);
    node.store_notification("ada", "lost").await;
    let third = node.store_notification("ada", "n3").await;
    while_catching_up(&node, async {
        node.sessions.deliver(&Node::room("ada"), &third);
        while device.received_ids().len() < 3 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let fourth = node.store_notification("ada", "n4").await;
    node.sessions.deliver(&Node::room("ada"), &fourth);
    assert_eq!(device.received_ids(), ["n1", "lost", "n3", "n4"]);
    assert_eq!(device.close_reason(), None);
}

#[tokio::test]
async fn catch_up_all_sends_only_to_devices_that_missed_events() {
    let node = node();
    let mut devices = Vec::new();
    for name in ["ada", "bob"] {
        let device = FakeDevice::new();
        let session = node.join(claims(name, 10_000), device.clone());
        connect(&node.sessions, &session, None).await;
        devices.push(device);
    }
    node.store_notification("ada", "lost").await;
    while_catching_up(&node, async {
        node.sessions.catch_up_all().await;
        while devices[0].received_ids().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(devices[0].received_ids(), ["lost"]);
    assert_eq!(kinds(&devices[0]), ["sync", "count 0", "new", "count 1"]);
    assert_eq!(
        kinds(&devices[1]),
        ["sync", "count 0"],
        "nothing follows the pushes of the connect"
    );
}

/// Records the charges. Replays wait while `is_exhausted` is set.
#[derive(Default)]
struct RecordedWork {
    /// The user, the number of notifications and the bytes of their texts.
    charges: Mutex<Vec<(String, usize, usize)>>,
    is_exhausted: AtomicBool,
}

#[async_trait]
impl WorkBudget for RecordedWork {
    async fn available(&self, _: &UserId) {
        while self.is_exhausted.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn charge(&self, user: &UserId, notifications: usize, text_bytes: usize) {
        self.charges.lock().push((user.to_string(), notifications, text_bytes));
    }
}

fn node_with(work: &Arc<RecordedWork>) -> Node {
    let store = Arc::new(InMemoryStore::new(epoch("e1")));
    let clock = Arc::new(ManualClock::at(0));
    let sessions =
        new_sessions_with(store.clone(), &clock, work.clone(), Arc::new(FakeTokenVerifier));
    Node { sessions, store, clock }
}

#[tokio::test(start_paused = true)]
async fn requested_replay_waits_for_the_work_budget_and_is_charged() {
    let work = Arc::new(RecordedWork::default());
    let node = node_with(&work);
    node.store_notification("ada", "n1").await;
    node.store_notification("ada", "n2").await;
    let device = FakeDevice::new();
    let session = node.join(claims("ada", 10_000), device.clone());
    work.is_exhausted.store(true, Ordering::SeqCst);
    let meanwhile = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(device.received_ids().is_empty(), "the budget is exhausted");
        work.is_exhausted.store(false, Ordering::SeqCst);
    };
    tokio::join!(connect(&node.sessions, &session, since(0)), meanwhile);
    assert_eq!(device.received_ids(), ["n1", "n2"]);
    let text_bytes = a_draft("ada", "n1").into_notification(Revision::new(1)).text_bytes();
    assert_eq!(*work.charges.lock(), [("ada".to_owned(), 2, 2 * text_bytes)]);
}

#[tokio::test]
async fn catch_up_after_a_lost_event_is_not_charged_and_does_not_wait_for_the_budget() {
    let work = Arc::new(RecordedWork::default());
    let node = node_with(&work);
    let device = FakeDevice::new();
    let session = node.join(claims("ada", 10_000), device.clone());
    connect(&node.sessions, &session, None).await;
    work.is_exhausted.store(true, Ordering::SeqCst);
    node.store_notification("ada", "lost").await;
    while_catching_up(&node, async {
        node.sessions.catch_up_all().await;
        while device.received_ids().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(work.charges.lock().is_empty());
}

#[derive(Default)]
struct RecordedCatchUps(Mutex<Vec<CatchUpCause>>);

impl CatchUpMonitor for RecordedCatchUps {
    fn record(&self, cause: CatchUpCause, _: Duration) {
        self.0.lock().push(cause);
    }
}

#[tokio::test]
async fn catch_ups_are_reported_by_cause_and_lagging_sessions_are_counted() {
    let recorded = Arc::new(RecordedCatchUps::default());
    let mut node = node();
    node.sessions = node.sessions.monitored_by(recorded.clone());
    node.store_notification("ada", "n1").await;
    let first = node.join(claims("ada", 10_000), FakeDevice::new());
    connect(&node.sessions, &first, None).await;
    assert_eq!(*recorded.0.lock(), [], "a connect without a resume point is not recorded");
    node.sessions.sync(&first, since(0)).await.unwrap();
    let second = node.join(claims("ada", 10_000), FakeDevice::new());
    connect(&node.sessions, &second, since(0)).await;

    node.store_notification("ada", "lost").await;
    let next = node.store_notification("ada", "next").await;
    node.sessions.deliver(&Node::room("ada"), &next);
    assert_eq!(node.sessions.lagging_count(), 2);
    let caught_up = async {
        while node.sessions.lagging_count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    while_catching_up(&node, caught_up).await;
    let expected = [
        CatchUpCause::Request,
        CatchUpCause::Connect,
        CatchUpCause::MissedEvent,
        CatchUpCause::MissedEvent,
    ];
    assert_eq!(*recorded.0.lock(), expected);
}
