//! Whatever happens while a device connects or asks again, and in whatever order, it hears each change
//! once and in order, also if it ignores `notification:sync`.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::atomic::AtomicBool;
use std::task::Poll;

use async_trait::async_trait;
use belfry_domain::{
    DomainEvent, Draft, Epoch, InboxState, Marked, MissedChange, Notification, NotificationId,
    Receipt, ReplayRange, Revision, UserId, UserRoom,
};
use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::time::sleep;

use super::*;
use crate::access::Access;
use crate::ports::{
    History, IdempotencyKey, InboxRepository, ListFilter, Once, Outbox as _, OutboxLease, Page,
    PageLimit, PortError,
};
use crate::push::Selection;
use crate::revoked_tokens::RevokedTokens;
use crate::testing::{
    FakeDevice, FakeTokens, InMemoryStore, ManualClock, a_draft, at, claims, epoch, id, user,
};
use crate::use_cases::ResumePoint;

/// A step of the world around a device.
#[derive(Debug, Clone)]
enum Step {
    Create,
    /// Of those that were created, by number.
    MarkRead(usize),
    MarkAllRead,
    Delete(usize),
    /// So many events arrive that are on their way.
    Deliver(usize),
    /// The device reads so many frames.
    Read(usize),
    /// Others run.
    Yield(usize),
    /// Some milliseconds pass.
    Pass(u64),
}

fn change() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Create),
        2 => (0..12_usize).prop_map(Step::MarkRead),
        1 => Just(Step::MarkAllRead),
        1 => (0..12_usize).prop_map(Step::Delete),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => change(),
        3 => (1..4_usize).prop_map(Step::Deliver),
        1 => (1..4_usize).prop_map(Step::Read),
        2 => (1..5_usize).prop_map(Step::Yield),
        1 => (1..30_u64).prop_map(Step::Pass),
    ]
}

/// A store that lets others run before each answer and after it, as a real one does.
struct Interleaved(Arc<InMemoryStore>);

/// Lets others run once.
async fn yield_once() {
    let mut yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl Interleaved {
    async fn read<T>(&self, question: impl Future<Output = T>) -> T {
        yield_once().await;
        let answer = question.await;
        yield_once().await;
        answer
    }
}

#[async_trait]
impl InboxRepository for Interleaved {
    async fn epoch(&self) -> Result<Epoch, PortError> {
        self.read(self.0.epoch()).await
    }
    async fn state(&self, user: &UserId) -> Result<InboxState, PortError> {
        self.read(self.0.state(user)).await
    }
    async fn history(
        &self,
        user: &UserId,
        since: Revision,
        limit: usize,
    ) -> Result<History, PortError> {
        self.read(self.0.history(user, since, limit)).await
    }
    async fn created_in(
        &self,
        user: &UserId,
        range: ReplayRange,
        limit: PageLimit,
    ) -> Result<Page, PortError> {
        self.read(self.0.created_in(user, range, limit)).await
    }
    async fn changed_in(
        &self,
        user: &UserId,
        range: ReplayRange,
        limit: usize,
    ) -> Result<Option<Vec<MissedChange>>, PortError> {
        self.read(self.0.changed_in(user, range, limit)).await
    }
    async fn create(&self, _: Vec<Draft>) -> Result<Vec<Receipt>, PortError> {
        unreachable!("sessions only read")
    }
    async fn create_once(&self, _: &IdempotencyKey, _: Vec<Draft>) -> Result<Once, PortError> {
        unreachable!("sessions only read")
    }
    async fn mark_read(
        &self,
        _: &UserId,
        _: &[NotificationId],
        _: Timestamp,
    ) -> Result<Marked, PortError> {
        unreachable!("sessions only read")
    }
    async fn mark_all_read(
        &self,
        _: &UserId,
        _: Timestamp,
    ) -> Result<Option<DomainEvent>, PortError> {
        unreachable!("sessions only read")
    }
    async fn delete(
        &self,
        _: &UserId,
        _: &[NotificationId],
        _: Timestamp,
    ) -> Result<Option<DomainEvent>, PortError> {
        unreachable!("sessions only read")
    }
    async fn get(&self, _: &UserId, _: &NotificationId) -> Result<Option<Notification>, PortError> {
        unreachable!("sessions only read")
    }
    async fn list(&self, _: &UserId, _: &ListFilter, _: PageLimit) -> Result<Page, PortError> {
        unreachable!("sessions only read")
    }
}

/// Which notifications there are, and whether each is read.
type Inbox = BTreeMap<String, bool>;

struct World {
    store: Arc<InMemoryStore>,
    sessions: Sessions<FakeDevice>,
    device: FakeDevice,
    user: UserId,
    created: Mutex<usize>,
    /// A device that has caught up reads at once: how slow it may be then is tested elsewhere.
    caught_up: AtomicBool,
    /// The events on their way to this node.
    relay: tokio::sync::Mutex<Box<dyn OutboxLease>>,
}

impl World {
    async fn new(max_held: usize, device: FakeDevice) -> Self {
        let store = Arc::new(InMemoryStore::new(epoch("e1")));
        let clock = Arc::new(ManualClock::at(0));
        let revoked = Arc::new(RevokedTokens::none());
        let catch_up = CatchUp::new(Arc::new(Interleaved(store.clone())), 1_000);
        let sessions = Sessions::new(
            SignIn::new(Arc::new(FakeTokens), clock.clone(), revoked, Access::default()),
            catch_up.with_pages(PageLimit::rows(2), 2),
            clock,
            SessionSettings { max_held, ..SessionSettings::default() },
        );
        let relay = tokio::sync::Mutex::new(store.acquire_lease().await.unwrap().unwrap());
        Self {
            store,
            sessions,
            device,
            user: user("ada"),
            created: Mutex::new(0),
            caught_up: AtomicBool::new(false),
            relay,
        }
    }

    async fn take(&self, step: &Step) {
        match step {
            Step::Create => {
                let number = {
                    let mut created = self.created.lock();
                    *created += 1;
                    *created
                };
                self.store.create(vec![a_draft("ada", &format!("n{number}"))]).await.unwrap();
            }
            Step::MarkRead(n) => {
                self.store.mark_read(&self.user, &[id(&format!("n{n}"))], at(1)).await.unwrap();
            }
            Step::MarkAllRead => {
                self.store.mark_all_read(&self.user, at(1)).await.unwrap();
            }
            Step::Delete(n) => {
                self.store.delete(&self.user, &[id(&format!("n{n}"))], at(1)).await.unwrap();
            }
            Step::Deliver(count) => self.deliver(*count).await,
            Step::Read(count) => self.device.read_frames(*count),
            Step::Yield(times) => {
                for _ in 0..*times {
                    yield_once().await;
                }
            }
            Step::Pass(millis) => sleep(Duration::from_millis(*millis)).await,
        }
    }

    async fn deliver(&self, count: usize) {
        let mut relay = self.relay.lock().await;
        for entry in relay.pending(count).await.unwrap() {
            relay.remove(&[entry.id]).await.unwrap();
            if self.caught_up.load(Ordering::Relaxed) {
                self.device.read();
            }
            let room = UserRoom::of(self.user.clone());
            self.sessions.deliver(&room, &PushBatch::of(entry.event));
        }
    }

    /// Runs `during` while the world takes these steps.
    async fn run<T>(&self, steps: &[Step], during: impl Future<Output = T>) -> T {
        let taking = async {
            for step in steps {
                self.take(step).await;
            }
        };
        tokio::join!(during, taking).0
    }

    /// Lets the device catch up; it reads all that comes, slowly.
    async fn catching_up<T>(&self, during: impl Future<Output = T>) -> T {
        self.caught_up.store(false, Ordering::Relaxed);
        let read = async {
            loop {
                sleep(Duration::from_millis(50)).await;
                self.device.read();
            }
        };
        tokio::pin!(during, read);
        let result = poll_fn(|context| match during.as_mut().poll(context) {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => {
                read.as_mut().poll(context).map(|never: std::convert::Infallible| match never {})
            }
        })
        .await;
        self.caught_up.store(true, Ordering::Relaxed);
        result
    }

    async fn revision(&self) -> Revision {
        self.store.state(&self.user).await.unwrap().revision
    }

    async fn inbox(&self) -> Inbox {
        let all = PageLimit::rows(usize::MAX);
        let page = self.store.list(&self.user, &ListFilter::default(), all).await.unwrap();
        page.items.iter().map(|one| (one.id.to_string(), one.is_read())).collect()
    }
}

/// What a device makes of what it hears.
fn apply(inbox: &mut Inbox, push: &Push) {
    match push {
        Push::New(one) => {
            inbox.insert(one.id.to_string(), one.is_read());
        }
        Push::MarkedRead { which: Selection::All, .. } => {
            for read in inbox.values_mut() {
                *read = true;
            }
        }
        Push::MarkedRead { which: Selection::Ids(ids), .. } => {
            for id in ids {
                inbox.entry(id.to_string()).and_modify(|read| *read = true);
            }
        }
        Push::Deleted { ids, .. } => {
            for id in ids {
                inbox.remove(id.as_str());
            }
        }
        _ => {}
    }
}

fn revision_of(push: &Push) -> Option<Revision> {
    match push {
        Push::New(one) => Some(one.revision),
        Push::UnreadCount { revision, .. }
        | Push::MarkedRead { revision, .. }
        | Push::Deleted { revision, .. } => Some(*revision),
        _ => None,
    }
}

#[derive(Debug, Clone)]
struct Scenario {
    before: Vec<Step>,
    missed: Vec<Step>,
    /// Whether the device has what happened before; else it has nothing.
    resumes: bool,
    /// How many frames the device takes until it reads.
    room: Option<usize>,
    max_held: usize,
    connecting: Vec<Step>,
    /// Taken while the device asks for the state without a position.
    asking: Option<Vec<Step>>,
}

prop_compose! {
    fn scenario()(
        before in prop::collection::vec(change(), 0..8),
        missed in prop::collection::vec(step(), 0..16),
        resumes in any::<bool>(),
        room in prop_oneof![Just(None), Just(Some(2)), Just(Some(5))],
        max_held in prop_oneof![Just(2_usize), Just(1_000)],
        connecting in prop::collection::vec(step(), 0..40),
        asking in prop::option::of(prop::collection::vec(step(), 0..20)),
    ) -> Scenario {
        Scenario { before, missed, resumes, room, max_held, connecting, asking }
    }
}

async fn check(scenario: Scenario) -> Result<(), TestCaseError> {
    let device = scenario.room.map_or_else(FakeDevice::new, FakeDevice::with_room_for);
    let world = World::new(scenario.max_held, device.clone()).await;
    for step in &scenario.before {
        world.take(step).await;
    }
    let (had, since) = (world.inbox().await, world.revision().await);
    for step in &scenario.missed {
        world.take(step).await;
    }
    let resume = scenario.resumes.then(|| ResumePoint { since, epoch: Some(epoch("e1")) });

    let connect = async {
        let admission = world.sessions.admit(claims("ada", i64::MAX)).unwrap();
        let session = world.sessions.join(admission, device.clone());
        let plan = world.sessions.prepare(&session, resume).await.unwrap();
        // Here the client is told that it is connected.
        let connected_at = world.revision().await;
        yield_once().await;
        world.catching_up(world.sessions.start(&session, plan)).await;
        (session, connected_at)
    };
    let (session, connected_at) = world.run(&scenario.connecting, connect).await;
    if let Some(steps) = &scenario.asking {
        let ask = world.catching_up(world.sessions.sync(&session, None));
        world.run(steps, ask).await.unwrap();
    }
    device.read();
    while world.store.backlog().await.unwrap() > 0 {
        world.deliver(1).await;
        device.read();
    }
    prop_assert_eq!(device.closed(), None);

    let heard = device.heard();
    let revisions: Vec<_> = heard.iter().filter_map(revision_of).collect();
    prop_assert!(revisions.is_sorted(), "{:?}", heard);
    let (mut inbox, now) = (had, world.inbox().await);
    for push in &heard {
        apply(&mut inbox, push);
    }
    if scenario.resumes {
        prop_assert_eq!(&inbox, &now);
    }
    let after = ReplayRange::new(connected_at, world.revision().await);
    let all = PageLimit::rows(usize::MAX);
    let since_connect = world.store.created_in(&world.user, after, all).await.unwrap();
    let mut new = BTreeMap::new();
    for name in device.heard_ids() {
        *new.entry(name).or_insert(0) += 1;
    }
    prop_assert!(new.values().all(|times| *times == 1), "{:?}", new);
    for one in since_connect.items {
        let name = one.id.to_string();
        prop_assert!(new.contains_key(&name), "{} of {:?}", name, heard);
        prop_assert_eq!(inbox[&name], one.is_read());
    }
    Ok(())
}

proptest! {
    #[test]
    fn each_change_is_heard_once_and_in_order_whatever_the_timing(scenario in scenario()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(check(scenario))?;
    }
}
