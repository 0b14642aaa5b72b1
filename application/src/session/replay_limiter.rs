use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use belfry_domain::UserId;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Limits the replay pages in flight on this node.
///
/// A session needs a [`ReplayPermit`] to read a page from the store and to send it. It keeps the permit
/// until its device has read the page. Permits are granted in the order of the requests and to one session of
/// each user at a time, so a user with many devices delays only these devices. The session of a device that
/// reads slowly must exchange its permit for a [`SlowPermit`] after [`ReplayLimits::permit_timeout`], so that
/// others can use the normal permit. There are more slow permits. If none is free, the replay fails and the
/// device is disconnected.
///
/// Only sessions that are catching up wait here, each of them once, so there are never more waiters
/// than connected devices. A waiter has no page in memory.
pub(super) struct ReplayLimiter {
    limits: ReplayLimits,
    node: Arc<Semaphore>,
    node_slow: Arc<Semaphore>,
    users: Arc<Users>,
}

/// The limits of a [`ReplayLimiter`].
#[derive(Debug, Clone, Copy)]
pub(super) struct ReplayLimits {
    /// The maximum number of pages in flight on this node with a [`ReplayPermit`]. Enough to keep the store's
    /// connections busy.
    pub(super) node: usize,
    /// The maximum time for which a session may keep a [`ReplayPermit`]. Then it must exchange the permit for
    /// a [`SlowPermit`].
    pub(super) permit_timeout: Duration,
    /// The maximum number of pages in flight on this node with a [`SlowPermit`]. They limit the memory: 256
    /// pages of 256 KiB take 64 MiB.
    pub(super) slow: usize,
    /// The maximum number of [`SlowPermit`]s of one user, so that one user cannot take all of them.
    pub(super) slow_per_user: usize,
}

impl ReplayLimits {
    pub(super) const DEFAULT: Self =
        Self { node: 16, permit_timeout: Duration::from_secs(1), slow: 256, slow_per_user: 8 };
}

/// The users whose devices have or wait for a permit.
type Users = Mutex<HashMap<UserId, UserLimits>>;

struct UserLimits {
    normal: Arc<Semaphore>,
    slow: Arc<Semaphore>,
    /// The number of [`UserHandle`]s of this user.
    handles: usize,
}

/// Keeps a user's entry in [`Users`]. Dropping the last handle removes the entry.
struct UserHandle {
    users: Arc<Users>,
    user: UserId,
}

/// The right of one session of a user to wait for a [`ReplayPermit`]. The user's next session gets its turn
/// when that permit is dropped or exchanged.
pub(super) struct Turn {
    user: OwnedSemaphorePermit,
    handle: UserHandle,
}

/// Permits reading and sending one page.
pub(super) struct ReplayPermit {
    _user: OwnedSemaphorePermit,
    _node: OwnedSemaphorePermit,
    handle: UserHandle,
}

/// Permits sending the rest of a page to a slow device.
pub(super) struct SlowPermit {
    _user: OwnedSemaphorePermit,
    _node: OwnedSemaphorePermit,
    _handle: UserHandle,
}

impl ReplayLimiter {
    pub(super) fn new(limits: ReplayLimits) -> Self {
        Self {
            limits,
            node: Arc::new(Semaphore::new(limits.node)),
            node_slow: Arc::new(Semaphore::new(limits.slow)),
            users: Arc::default(),
        }
    }

    /// The maximum time for which a session may keep a [`ReplayPermit`].
    pub(super) fn permit_timeout(&self) -> Duration {
        self.limits.permit_timeout
    }

    /// Waits until it is the caller's turn among the user's sessions.
    pub(super) async fn turn(&self, user: &UserId) -> Turn {
        let handle = self.handle(user);
        let user_semaphore = handle.semaphore(|limits| &limits.normal);
        Turn { user: acquire_from(user_semaphore).await, handle }
    }

    /// Waits for a permit. Only one session of each user waits here, the one whose turn it is.
    pub(super) async fn acquire(&self, Turn { user, handle }: Turn) -> ReplayPermit {
        ReplayPermit { _user: user, _node: acquire_from(self.node.clone()).await, handle }
    }

    /// Exchanges a permit for a [`SlowPermit`]; `None` if no slow permit is free.
    pub(super) fn exchange(&self, permit: ReplayPermit) -> Option<SlowPermit> {
        let ReplayPermit { handle, .. } = permit;
        let user_semaphore = handle.semaphore(|limits| &limits.slow);
        Some(SlowPermit {
            _user: user_semaphore.try_acquire_owned().ok()?,
            _node: self.node_slow.clone().try_acquire_owned().ok()?,
            _handle: handle,
        })
    }

    fn handle(&self, user: &UserId) -> UserHandle {
        let mut users = self.users.lock();
        let limits = users.entry(user.clone()).or_insert_with(|| UserLimits {
            normal: Arc::new(Semaphore::new(1)),
            slow: Arc::new(Semaphore::new(self.limits.slow_per_user)),
            handles: 0,
        });
        limits.handles += 1;
        UserHandle { users: self.users.clone(), user: user.clone() }
    }
}

impl UserHandle {
    fn semaphore(&self, select: impl FnOnce(&UserLimits) -> &Arc<Semaphore>) -> Arc<Semaphore> {
        let users = self.users.lock();
        select(users.get(&self.user).expect("an entry with a handle is not removed")).clone()
    }
}

impl Drop for UserHandle {
    fn drop(&mut self) {
        let mut users = self.users.lock();
        if let Some(limits) = users.get_mut(&self.user) {
            limits.handles -= 1;
            if limits.handles == 0 {
                users.remove(&self.user);
            }
        }
    }
}

async fn acquire_from(semaphore: Arc<Semaphore>) -> OwnedSemaphorePermit {
    semaphore.acquire_owned().await.expect("the semaphore is never closed")
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::testing::user;

    const LIMITS: ReplayLimits =
        ReplayLimits { node: 2, permit_timeout: Duration::from_secs(1), slow: 3, slow_per_user: 2 };

    async fn acquire(limiter: &ReplayLimiter, user: &UserId) -> ReplayPermit {
        limiter.acquire(limiter.turn(user).await).await
    }

    /// Acquires a permit; `None` if none is free.
    async fn try_acquire(limiter: &ReplayLimiter, name: &str) -> Option<ReplayPermit> {
        timeout(Duration::from_millis(1), acquire(limiter, &user(name))).await.ok()
    }

    #[tokio::test(start_paused = true)]
    async fn permits_are_limited_per_user_and_per_node() {
        let limiter = ReplayLimiter::new(LIMITS);
        let first = try_acquire(&limiter, "ada").await.unwrap();
        assert!(try_acquire(&limiter, "ada").await.is_none(), "a user has at most one permit");
        let second = try_acquire(&limiter, "bob").await.unwrap();
        assert!(try_acquire(&limiter, "cy").await.is_none(), "the node has at most two permits");
        drop(first);
        assert!(try_acquire(&limiter, "cy").await.is_some());
        drop(second);
        assert!(limiter.users.lock().is_empty(), "users without a permit are removed");
    }

    #[tokio::test(start_paused = true)]
    async fn permits_are_granted_in_the_order_of_the_requests() {
        let limiter = ReplayLimiter::new(ReplayLimits { node: 1, ..LIMITS });
        let first = try_acquire(&limiter, "ada").await.unwrap();
        let (bob, cy) = (user("bob"), user("cy"));
        {
            let second = acquire(&limiter, &bob);
            let third = acquire(&limiter, &cy);
            tokio::pin!(second, third);
            assert!(timeout(Duration::from_millis(1), &mut second).await.is_err());
            assert!(timeout(Duration::from_millis(1), &mut third).await.is_err());
            drop(first);
            let third_waits = timeout(Duration::from_millis(1), &mut third).await.is_err();
            assert!(third_waits, "bob requested a permit before cy");
            drop(second.await);
            drop(third.await);
        }
        assert!(limiter.users.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn slow_device_exchanges_its_permit_while_slow_permits_are_free() {
        let limiter = ReplayLimiter::new(LIMITS);
        let mut slow_permits = Vec::new();
        for name in ["ada", "ada", "bob"] {
            let permit = try_acquire(&limiter, name).await.unwrap();
            slow_permits.push(limiter.exchange(permit).unwrap());
        }
        let permit = try_acquire(&limiter, "bob").await.unwrap();
        assert!(limiter.exchange(permit).is_none(), "the node has at most three slow permits");
        slow_permits.pop();
        let permit = try_acquire(&limiter, "ada").await.unwrap();
        assert!(limiter.exchange(permit).is_none(), "a user has at most two slow permits");
        slow_permits.clear();
        assert!(limiter.users.lock().is_empty());
    }
}
