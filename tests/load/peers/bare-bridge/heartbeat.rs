//! Engine.IO pings.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::frames;
use crate::socket::Socket;

pub(crate) const PING_INTERVAL: Duration = Duration::from_secs(25);

const SLOTS: usize = 250;
const TICK: Duration = Duration::from_millis(100); // PING_INTERVAL / SLOTS

/// A timer wheel that turns once per ping interval. New sockets are added to its slots in turn. This spreads
/// the pings over the interval even if all sockets connected at once, so that no event waits behind a burst
/// of pings.
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
    /// Adds a socket, which is pinged until it is dropped.
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
                if socket.take_pong() {
                    socket.send(&ping);
                } else {
                    socket.abort();
                }
                true
            });
        }
    }
}
