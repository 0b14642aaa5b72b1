//! Delivering an event to the devices of one user. Each of these devices may add a little to the cost. Other
//! connected devices must not, except by cache misses. The number of allocations must depend on neither,
//! because the event is encoded once for all devices.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use belfry_adapters::bench_support::websocket_frame;
use belfry_adapters::outbound::socketio::{EventFrame, SocketIoDevice};
use belfry_application::access::Access;
use belfry_application::ports::{CloseReason, Device, RealtimeDelivery, SendError};
use belfry_application::push::{Push, PushBatch};
use belfry_application::revoked_tokens::RevokedTokens;
use belfry_application::session::{SessionSettings, Sessions};
use belfry_application::testing::{
    FakeTokenVerifier, InMemoryStore, ManualClock, UnlimitedWork, claims, epoch, user,
};
use belfry_application::use_cases::{CatchUp, SignIn};
use belfry_domain::{Revision, UnreadCount, UserRoom};
use futures_util::FutureExt as _;

use crate::encoding;
use crate::microbenchmarks::Microbenchmarks;

/// The number of other connected users.
const OTHERS: usize = 10_000;

pub(crate) fn measure(benches: &mut Microbenchmarks) {
    for (name, devices, others) in [
        ("1 device, alone", 1, 0),
        ("1 device among 10,000 users", 1, OTHERS),
        ("10 devices among 10,000 users", 10, OTHERS),
        ("100 devices among 10,000 users", 100, OTHERS),
    ] {
        let node = Node::with_others(others);
        node.connect("u42", devices);
        let mut events = UserEvents::for_user("u42");
        benches.bench(&format!("delivery/{name}"), || events.deliver(&node));
    }

    // Another user each time, so that their data is not in a cache.
    let node = Node::with_others(OTHERS);
    let mut users: Vec<_> =
        (0..OTHERS).map(|other| UserEvents::for_user(&name_of(other))).collect();
    let mut turn = 0;
    benches.bench("delivery/1 device, each of 10,000 users in turn", || {
        // The step has no common factor with `OTHERS`, so the turns visit all users. Successive users are far apart
        // in memory.
        turn = (turn + 7_919) % OTHERS;
        users[turn].deliver(&node)
    });
}

/// A device whose transport accepts everything at once, and only counts its bytes.
#[derive(Default)]
pub(crate) struct DiscardingDevice(AtomicU64);

impl Device for DiscardingDevice {
    type Frame = EventFrame;

    fn frame(push: &Push) -> EventFrame {
        SocketIoDevice::frame(push)
    }

    fn send(&self, frame: &EventFrame) -> Result<(), SendError> {
        self.0.fetch_add(websocket_frame(frame).len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn queued(&self) -> usize {
        0
    }

    fn close(&self, reason: CloseReason) {
        panic!("disconnected: {}", reason.as_str());
    }
}

/// A node with devices that are connected and have caught up.
pub(crate) struct Node(Sessions<DiscardingDevice>);

impl Node {
    pub(crate) fn with_others(others: usize) -> Self {
        let clock = Arc::new(ManualClock::at(0));
        let revoked = Arc::new(RevokedTokens::empty());
        let node = Self(Sessions::new(
            SignIn::new(Arc::new(FakeTokenVerifier), clock.clone(), revoked, Access::default()),
            CatchUp::new(Arc::new(InMemoryStore::new(epoch("e1"))), 100),
            Arc::new(UnlimitedWork),
            clock,
            SessionSettings::default(),
        ));
        for other in 0..others {
            node.connect(&name_of(other), 1);
        }
        node
    }

    pub(crate) fn connect(&self, name: &str, devices: usize) {
        for _ in 0..devices {
            let admission = self.0.admit(claims(name, 1_000_000)).expect("there is no limit");
            let session = self.0.join(admission, DiscardingDevice::default());
            let plan = self.0.prepare(&session, None).now_or_never().expect("nothing to wait for");
            let plan = plan.expect("the store is in memory");
            self.0.start(&session, plan).now_or_never().expect("nothing to wait for");
        }
    }
}

#[async_trait]
impl RealtimeDelivery for Node {
    async fn deliver(&self, room: &UserRoom, batch: PushBatch) -> usize {
        self.0.deliver(room, &batch)
    }
}

fn name_of(other: usize) -> String {
    format!("other-{other}")
}

/// Events for one user. Each delivery has the next revision, because devices ignore known revisions.
struct UserEvents {
    room: UserRoom,
    batch: PushBatch,
}

impl UserEvents {
    fn for_user(name: &str) -> Self {
        let revision = Revision::ZERO;
        let pushes = vec![
            Push::New(Arc::new(encoding::stored())),
            Push::UnreadCount { count: UnreadCount::new(5), revision },
        ];
        let batch = PushBatch { revision: Some(revision), starts_over: false, pushes };
        Self { room: UserRoom::of(user(name)), batch }
    }

    fn deliver(&mut self, node: &Node) -> usize {
        self.batch.revision = self.batch.revision.map(Revision::next);
        let delivered = node.0.deliver(&self.room, &self.batch);
        assert!(delivered > 0, "the user has a device");
        delivered
    }
}
