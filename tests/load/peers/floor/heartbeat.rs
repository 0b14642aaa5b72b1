//! Engine.IO's pings.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::frames;
use crate::socket::Socket;

pub(crate) const PING_INTERVAL: Duration = Duration::from_secs(25);

const SLOTS: usize = 250;
const TICK: Duration = Duration::from_millis(100); // an interval has SLOTS of them

/// A wheel that turns once in an interval. Sockets go to its slots in turn: however fast they came,
/// their pings are spread over the whole of it, and no event waits behind a burst of them.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    slots: [Mutex<Vec<Weak<Socket>>>; SLOTS],
    next: AtomicUsize,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self { slots: [const { Mutex::new(Vec::new()) }; SLOTS], next: AtomicUsize::new(0) }
    }
}

impl Heartbeat {
    /// From now on, as long as it is there.
    pub(crate) fn add(&self, socket: &Arc<Socket>) {
        let slot = &self.slots[self.next.fetch_add(1, Ordering::Relaxed) % SLOTS];
        slot.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(socket));
    }

    pub(crate) async fn run(&self) {
        let mut ping = Vec::new();
        frames::text(&mut ping, &["2"]);
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for slot in self.slots.iter().cycle() {
            tick.tick().await;
            let mut sockets = slot.lock().unwrap_or_else(PoisonError::into_inner);
            sockets.retain(|socket| {
                let Some(socket) = socket.upgrade() else { return false };
                if socket.ponged() {
                    socket.send(&ping);
                } else {
                    socket.cut();
                }
                true
            });
        }
    }
}
