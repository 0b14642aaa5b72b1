use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use belfry_domain::UserId;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bounds what replays take at any time: one page for each turn, whoever reads it.
///
/// A page is read from the store and sent within a turn, which lasts until the device has taken the
/// page. Turns are given in the order in which they are asked for, one for each user, so a user with many
/// devices waits for these and not for others. A device that reads slowly would keep its turn from
/// others for as long as it likes; after [`TurnLimits::turn`] it goes on in a slot for slow devices,
/// of which there are more. Where these are taken, it is too slow for now.
///
/// Nobody queues here but sessions that are catching up, each of them once, so there are never more
/// waiters than connected devices. A waiter holds no page.
pub(super) struct ReplayTurns {
    limits: TurnLimits,
    node: Arc<Semaphore>,
    slow: Arc<Semaphore>,
    users: Arc<Users>,
}

/// How many pages may be in flight.
#[derive(Debug, Clone, Copy)]
pub(super) struct TurnLimits {
    /// On this node, to devices that read: what keeps the store's connections busy and no more.
    pub(super) node: usize,
    /// For how long a device counts as one that reads.
    pub(super) turn: Duration,
    /// On this node, to slow devices. With pages of 256 KiB these are 64 MiB.
    pub(super) slow: usize,
    /// To slow devices of one user, so that nobody takes the slots of all.
    pub(super) slow_per_user: usize,
}

impl TurnLimits {
    pub(super) const USUAL: Self =
        Self { node: 16, turn: Duration::from_secs(1), slow: 256, slow_per_user: 8 };
}

/// The users whose devices have or wait for a turn.
type Users = Mutex<HashMap<UserId, Entry>>;

struct Entry {
    turn: Arc<Semaphore>,
    slow: Arc<Semaphore>,
    /// How many [`Listed`] there are.
    uses: usize,
}

/// Keeps a user's entry.
struct Listed {
    users: Arc<Users>,
    user: UserId,
}

/// May read and send one page.
pub(super) struct Turn {
    _user: OwnedSemaphorePermit,
    _node: OwnedSemaphorePermit,
    listed: Listed,
}

/// May go on sending a page that is read.
pub(super) struct SlowSlot {
    _user: OwnedSemaphorePermit,
    _node: OwnedSemaphorePermit,
    _listed: Listed,
}

impl ReplayTurns {
    pub(super) fn new(limits: TurnLimits) -> Self {
        Self {
            limits,
            node: Arc::new(Semaphore::new(limits.node)),
            slow: Arc::new(Semaphore::new(limits.slow)),
            users: Arc::default(),
        }
    }

    /// For how long a device may keep a turn.
    pub(super) fn length(&self) -> Duration {
        self.limits.turn
    }

    /// Waits for a turn. The user's comes first: only one of each user waits for the node's.
    pub(super) async fn take(&self, user: &UserId) -> Turn {
        let listed = self.list(user);
        let of_user = listed.semaphore(|entry| &entry.turn);
        Turn { _user: permit(of_user).await, _node: permit(self.node.clone()).await, listed }
    }

    /// Gives the turn back and goes on among the slow ones; `None` where these are too many.
    pub(super) fn slow_down(&self, turn: Turn) -> Option<SlowSlot> {
        let Turn { listed, .. } = turn;
        let of_user = listed.semaphore(|entry| &entry.slow);
        Some(SlowSlot {
            _user: of_user.try_acquire_owned().ok()?,
            _node: self.slow.clone().try_acquire_owned().ok()?,
            _listed: listed,
        })
    }

    fn list(&self, user: &UserId) -> Listed {
        let mut users = self.users.lock();
        let entry = users.entry(user.clone()).or_insert_with(|| Entry {
            turn: Arc::new(Semaphore::new(1)),
            slow: Arc::new(Semaphore::new(self.limits.slow_per_user)),
            uses: 0,
        });
        entry.uses += 1;
        Listed { users: self.users.clone(), user: user.clone() }
    }
}

impl Listed {
    fn semaphore(&self, of: impl FnOnce(&Entry) -> &Arc<Semaphore>) -> Arc<Semaphore> {
        let users = self.users.lock();
        of(users.get(&self.user).expect("an entry stays as long as it is used")).clone()
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut users = self.users.lock();
        if let Some(entry) = users.get_mut(&self.user) {
            entry.uses -= 1;
            if entry.uses == 0 {
                users.remove(&self.user);
            }
        }
    }
}

async fn permit(semaphore: Arc<Semaphore>) -> OwnedSemaphorePermit {
    semaphore.acquire_owned().await.expect("nobody closes it")
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::testing::user;

    const LIMITS: TurnLimits =
        TurnLimits { node: 2, turn: Duration::from_secs(1), slow: 3, slow_per_user: 2 };

    /// A turn, if there is one at once.
    async fn take(turns: &ReplayTurns, name: &str) -> Option<Turn> {
        timeout(Duration::from_millis(1), turns.take(&user(name))).await.ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_user_has_one_turn_and_the_node_so_many() {
        let turns = ReplayTurns::new(LIMITS);
        let first = take(&turns, "ada").await.unwrap();
        assert!(take(&turns, "ada").await.is_none(), "one of each user");
        let second = take(&turns, "bob").await.unwrap();
        assert!(take(&turns, "cy").await.is_none(), "two on the node");
        drop(first);
        assert!(take(&turns, "cy").await.is_some());
        drop(second);
        assert!(turns.users.lock().is_empty(), "users without a turn are not remembered");
    }

    #[tokio::test(start_paused = true)]
    async fn turns_are_given_in_order_and_a_waiter_that_leaves_keeps_nothing() {
        let turns = ReplayTurns::new(TurnLimits { node: 1, ..LIMITS });
        let first = take(&turns, "ada").await.unwrap();
        let (bob, cy) = (user("bob"), user("cy"));
        let mut order = Vec::new();
        {
            let second = turns.take(&bob);
            let third = turns.take(&cy);
            tokio::pin!(second, third);
            assert!(timeout(Duration::from_millis(1), &mut second).await.is_err());
            assert!(timeout(Duration::from_millis(1), &mut third).await.is_err());
            drop(first);
            drop(second.await);
            order.push("bob");
            drop(third.await);
            order.push("cy");
        }
        assert_eq!(order, ["bob", "cy"]);
        assert!(turns.users.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_device_gives_its_turn_back_while_there_are_slots() {
        let turns = ReplayTurns::new(LIMITS);
        let mut slots = Vec::new();
        for name in ["ada", "ada", "bob"] {
            let turn = take(&turns, name).await.unwrap();
            slots.push(turns.slow_down(turn).unwrap());
        }
        let of_node = take(&turns, "bob").await.unwrap();
        assert!(turns.slow_down(of_node).is_none(), "three on the node");
        slots.pop();
        let of_user = take(&turns, "ada").await.unwrap();
        assert!(turns.slow_down(of_user).is_none(), "two of each user");
        slots.clear();
        assert!(turns.users.lock().is_empty());
    }
}
