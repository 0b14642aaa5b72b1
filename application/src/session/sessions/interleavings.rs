//! Property test: a device receives each change once and in order, whatever happens while it connects or
//! syncs. Unless the inbox is erased, this holds even for a device that ignores `notification:sync`.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::sync::atomic::AtomicBool;
use std::task::Poll;

use belfry_domain::{Change, DomainEvent, Receipt, ReplayRange, Revision, UnreadCount, UserId};
use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::time::sleep;

use super::*;
use crate::access::Access;
use crate::ports::{Erasure as _, InboxRepository as _, ListFilter, PageLimit};
use crate::push::Selection;
use crate::revoked_tokens::RevokedTokens;
use crate::testing::in_memory_store::yield_once;
use crate::testing::{
    FakeDevice, FakeTokenVerifier, InMemoryStore, ManualClock, UnlimitedWork, a_draft, at, claims,
    epoch, id, user,
};
use crate::use_cases::ResumePoint;

/// Something that happens to the inbox, to its events, to the device or to the clock.
#[derive(Debug, Clone)]
enum Step {
    Create,
    /// Marks the notification with this number as read.
    MarkRead(usize),
    MarkAllRead,
    /// Deletes the notification with this number.
    Delete(usize),
    /// Erases the inbox.
    Erase {
        /// Whether the events that have not arrived yet are lost. Otherwise they arrive later.
        lose_pending: bool,
    },
    /// This many pending events arrive.
    Deliver(usize),
    /// The device reads this many frames.
    Read(usize),
    /// Other tasks run this many times.
    Yield(usize),
    /// This many milliseconds pass.
    Sleep(u64),
}

fn change() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Create),
        2 => (0..12_usize).prop_map(Step::MarkRead),
        1 => Just(Step::MarkAllRead),
        1 => (0..12_usize).prop_map(Step::Delete),
        1 => any::<bool>().prop_map(|lose_pending| Step::Erase { lose_pending }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => change(),
        3 => (1..4_usize).prop_map(Step::Deliver),
        1 => (1..4_usize).prop_map(Step::Read),
        2 => (1..5_usize).prop_map(Step::Yield),
        1 => (1..30_u64).prop_map(Step::Sleep),
    ]
}

/// The notifications by id, and whether each is read.
type Inbox = BTreeMap<String, bool>;

struct World {
    store: Arc<InMemoryStore>,
    sessions: Sessions<FakeDevice>,
    device: FakeDevice,
    user: UserId,
    /// The number of created notifications.
    created: Mutex<usize>,
    /// Whether the device has caught up. It then reads each frame at once; other tests cover slow devices.
    caught_up: AtomicBool,
    /// The events that have not arrived at this node yet.
    pending: Mutex<VecDeque<DomainEvent>>,
}

impl World {
    fn new(max_held: usize, device: FakeDevice) -> Self {
        let store = Arc::new(InMemoryStore::new(epoch("e1")));
        let clock = Arc::new(ManualClock::at(0));
        let revoked = Arc::new(RevokedTokens::empty());
        let catch_up = CatchUp::new(Arc::new(store.yielding()), 1_000);
        let sessions = Sessions::new(
            SignIn::new(Arc::new(FakeTokenVerifier), clock.clone(), revoked, Access::default()),
            catch_up.with_pages(PageLimit::rows(2), 2),
            Arc::new(UnlimitedWork),
            clock,
            SessionSettings { max_held, ..SessionSettings::default() },
        );
        Self {
            store,
            sessions,
            device,
            user: user("ada"),
            created: Mutex::new(0),
            caught_up: AtomicBool::new(false),
            pending: Mutex::default(),
        }
    }

    async fn perform(&self, step: &Step) {
        match step {
            Step::Create => {
                let number = {
                    let mut created = self.created.lock();
                    *created += 1;
                    *created
                };
                let draft = a_draft("ada", &format!("n{number}"));
                for receipt in self.store.create(vec![draft]).await.unwrap() {
                    let Receipt::Created(event) = receipt else { panic!("{receipt:?}") };
                    self.pending.lock().push_back(event);
                }
            }
            Step::MarkRead(n) => {
                let ids = [id(&format!("n{n}"))];
                let marked = self.store.mark_read(&self.user, &ids, at(1)).await.unwrap();
                self.pending.lock().extend(marked.event);
            }
            Step::MarkAllRead => {
                let event = self.store.mark_all_read(&self.user, at(1)).await.unwrap();
                self.pending.lock().extend(event);
            }
            Step::Delete(n) => {
                let ids = [id(&format!("n{n}"))];
                let event = self.store.delete(&self.user, &ids, at(1)).await.unwrap();
                self.pending.lock().extend(event);
            }
            Step::Erase { lose_pending } => {
                if self.store.erase(&self.user).await.unwrap().inbox {
                    if *lose_pending {
                        self.pending.lock().clear();
                    }
                    let revision = self.revision().await;
                    let change = Change::Erased { epoch: epoch("e1") };
                    let (user, unread) = (self.user.clone(), UnreadCount::ZERO);
                    let event = DomainEvent { user, revision, unread, change };
                    self.pending.lock().push_back(event);
                }
            }
            Step::Deliver(count) => self.deliver(*count),
            Step::Read(count) => self.device.read_frames(*count),
            Step::Yield(times) => {
                for _ in 0..*times {
                    yield_once().await;
                }
            }
            Step::Sleep(millis) => sleep(Duration::from_millis(*millis)).await,
        }
    }

    /// Delivers at most `count` pending events, oldest first.
    fn deliver(&self, count: usize) {
        for _ in 0..count {
            let Some(event) = self.pending.lock().pop_front() else { return };
            if self.caught_up.load(Ordering::Relaxed) {
                self.device.read_all();
            }
            let room = UserRoom::of(self.user.clone());
            self.sessions.deliver(&room, &PushBatch::of(event));
        }
    }

    /// Runs `task` while these steps are performed.
    async fn run<T>(&self, steps: &[Step], task: impl Future<Output = T>) -> T {
        let performing = async {
            for step in steps {
                self.perform(step).await;
            }
        };
        tokio::join!(task, performing).0
    }

    /// Runs `task`. Meanwhile the device reads its send queue every 50 milliseconds.
    async fn with_slow_reader<T>(&self, task: impl Future<Output = T>) -> T {
        self.caught_up.store(false, Ordering::Relaxed);
        let read = async {
            loop {
                sleep(Duration::from_millis(50)).await;
                self.device.read_all();
            }
        };
        tokio::pin!(task, read);
        let result = poll_fn(|context| match task.as_mut().poll(context) {
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
        self.inbox_up_to(Revision::new(u64::MAX)).await
    }

    /// The notifications that were created up to this revision, in their state now.
    async fn inbox_up_to(&self, last: Revision) -> Inbox {
        let all = PageLimit::rows(usize::MAX);
        let page = self.store.list(&self.user, &ListFilter::default(), all).await.unwrap();
        let listed = page.items.iter().filter(|listed| listed.created_revision <= last);
        listed.map(|listed| (listed.id.to_string(), listed.is_read())).collect()
    }
}

/// Applies a received push to the device's list.
fn apply(inbox: &mut Inbox, push: &Push) {
    match push {
        Push::New(new) => {
            inbox.insert(new.id.to_string(), new.is_read());
        }
        Push::MarkedRead { selection: Selection::All, .. } => {
            for read in inbox.values_mut() {
                *read = true;
            }
        }
        Push::MarkedRead { selection: Selection::Ids(ids), .. } => {
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
        Push::New(new) => Some(new.revision),
        Push::UnreadCount { revision, .. }
        | Push::MarkedRead { revision, .. }
        | Push::Deleted { revision, .. } => Some(*revision),
        _ => None,
    }
}

#[derive(Debug, Clone)]
struct Scenario {
    /// Performed before the device's earlier connection ended.
    before: Vec<Step>,
    /// Performed while the device is offline.
    missed: Vec<Step>,
    /// Whether the device resumes after `before`; otherwise it has no resume point.
    resumes: bool,
    /// The capacity of the device's send queue in frames; `None` for a device that reads each frame at once.
    capacity: Option<usize>,
    /// The number of batches that the gate can hold.
    max_held: usize,
    /// Performed while the device connects.
    connecting: Vec<Step>,
    /// Performed while the device syncs without a resume point; `None` if it does not sync again.
    syncing: Option<Vec<Step>>,
}

impl Scenario {
    /// Whether the inbox is erased. A device that ignores `notification:sync` may then miss notifications that
    /// it would find in its list.
    fn has_erasure(&self) -> bool {
        let steps = [&self.before, &self.missed, &self.connecting];
        let mut steps = steps.into_iter().chain(&self.syncing).flatten();
        steps.any(|step| matches!(step, Step::Erase { .. }))
    }
}

prop_compose! {
    fn scenario()(
        before in prop::collection::vec(change(), 0..8),
        missed in prop::collection::vec(step(), 0..16),
        resumes in any::<bool>(),
        capacity in prop_oneof![Just(None), Just(Some(2)), Just(Some(5))],
        max_held in prop_oneof![Just(2_usize), Just(1_000)],
        connecting in prop::collection::vec(step(), 0..40),
        syncing in prop::option::of(prop::collection::vec(step(), 0..20)),
    ) -> Scenario {
        Scenario { before, missed, resumes, capacity, max_held, connecting, syncing }
    }
}

async fn check(scenario: Scenario) -> Result<(), TestCaseError> {
    let device = scenario.capacity.map_or_else(FakeDevice::new, FakeDevice::with_queue_of);
    let world = World::new(scenario.max_held, device.clone());
    for step in &scenario.before {
        world.perform(step).await;
    }
    let (known, since) = (world.inbox().await, world.revision().await);
    for step in &scenario.missed {
        world.perform(step).await;
    }
    let resume = scenario.resumes.then(|| ResumePoint { since, epoch: Some(epoch("e1")) });

    let connect = async {
        let admission = world.sessions.admit(claims("ada", i64::MAX)).unwrap();
        let session = world.sessions.join(admission, device.clone());
        let plan = world.sessions.prepare(&session, resume).await.unwrap();
        // A transport confirms the connect to the client here.
        let connected_at = world.revision().await;
        yield_once().await;
        world.with_slow_reader(world.sessions.start(&session, plan)).await;
        (session, connected_at)
    };
    let (session, connected_at) = world.run(&scenario.connecting, connect).await;
    if let Some(steps) = &scenario.syncing {
        let sync = world.with_slow_reader(world.sessions.sync(&session, None));
        world.run(steps, sync).await.unwrap();
    }
    device.read_all();
    while !world.pending.lock().is_empty() {
        world.deliver(1);
        device.read_all();
    }
    prop_assert_eq!(device.close_reason(), None);
    check_received(&scenario, &world, known, connected_at).await
}

/// Checks the pushes that the device received. `known` is its list before `missed`, and `connected_at` the
/// revision of the inbox when the connect was confirmed.
async fn check_received(
    scenario: &Scenario,
    world: &World,
    known: Inbox,
    connected_at: Revision,
) -> Result<(), TestCaseError> {
    let received = world.device.received();
    let revisions: Vec<_> = received.iter().filter_map(revision_of).collect();
    prop_assert!(revisions.is_sorted(), "{:?}", received);
    let (mut inbox, now) = (known, world.inbox().await);
    // The last revision at which the device loaded its list.
    let mut reloaded_at = Revision::ZERO;
    for push in &received {
        match push {
            Push::Sync(sync) if !sync.recovered => {
                reloaded_at = sync.revision;
                inbox = world.inbox_up_to(reloaded_at).await;
            }
            push => apply(&mut inbox, push),
        }
    }
    if scenario.resumes {
        prop_assert_eq!(&inbox, &now);
    }
    let after = ReplayRange::new(connected_at, world.revision().await);
    let all = PageLimit::rows(usize::MAX);
    let since_connect = world.store.created_in(&world.user, after, all).await.unwrap();
    let mut times_new = BTreeMap::new();
    for name in world.device.received_ids() {
        *times_new.entry(name).or_insert(0) += 1;
    }
    prop_assert!(times_new.values().all(|times| *times == 1), "{:?}", times_new);
    for created in since_connect.items {
        let name = created.id.to_string();
        let is_listed = scenario.has_erasure() && created.created_revision <= reloaded_at;
        prop_assert!(is_listed || times_new.contains_key(&name), "{} of {:?}", name, received);
        prop_assert_eq!(inbox[&name], created.is_read());
    }
    Ok(())
}

proptest! {
    #[test]
    fn each_change_is_received_once_and_in_order_whatever_the_timing(scenario in scenario()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(check(scenario))?;
    }
}
