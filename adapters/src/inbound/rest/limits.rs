//! Limits on requests: a rate for each caller, work for each user, and memory for all requests together.

use std::net::IpAddr;
use std::sync::Arc;

use belfry_domain::{Notification, UserId};
use http::Extensions;
use tokio::sync::OwnedSemaphorePermit;

use super::problem::Problem;
use crate::limits::{
    ByteLimiter, Cost, Limit, PerSecond, RateByKey, UserWork, WorkPermit, network_of,
};
use crate::transport::ClientAddress;

/// The rate limits of each caller (a user, or a network if the request has no valid token), the work limit of each
/// user, and the memory limits of all requests together.
#[derive(Clone)]
pub struct RequestLimits(Arc<Limits>);

struct Limits {
    requests: Option<RateByKey>,
    /// Requests that create notifications.
    writes: Option<RateByKey>,
    work: UserWork,
    /// The memory for request bodies.
    bodies: ByteLimiter,
    /// The memory for the drafts of requests for many users.
    drafts: ByteLimiter,
}

/// The caller of a request. Requests with the same key share a rate limit.
#[derive(Hash)]
enum RateKey<'a> {
    User(&'a UserId),
    /// `None` if the client's address is unknown.
    Network(Option<IpAddr>),
}

impl RequestLimits {
    /// The maximum size of the bodies of all requests in progress, in bytes. The limit is low because the
    /// drafts that are parsed from a body take several times the memory of the body.
    const MAX_BODY_BYTES: u32 = 4 * 1024 * 1024;

    /// The maximum size of the texts in the drafts of all requests for many users, in bytes. These drafts
    /// have a limit of their own, because a small body can expand to many drafts.
    const MAX_DRAFT_BYTES: u32 = 8 * 1024 * 1024;

    /// The size that is assumed for a body without a `Content-Length`, in bytes.
    const UNKNOWN_LENGTH: usize = 1024 * 1024;

    /// The rates apply to each caller; `None` means no limit. `writes` is the rate of requests that create
    /// notifications, `requests` that of all others. `work` is shared with the user's devices.
    pub fn new(requests: Option<PerSecond>, writes: Option<PerSecond>, work: UserWork) -> Self {
        let [requests, writes] = [requests, writes].map(|rate| rate.map(RateByKey::of));
        let [bodies, drafts] = [Self::MAX_BODY_BYTES, Self::MAX_DRAFT_BYTES].map(ByteLimiter::new);
        Self(Arc::new(Limits { requests, writes, work, bodies, drafts }))
    }

    /// Waits while too many store operations of this user are in progress. Rejects the request if the user's work
    /// budget is spent. Used for all requests except those that create notifications: they come from services, which
    /// act for many users and have a limit of their own ([`limit_write`](Self::limit_write)).
    pub(super) async fn acquire_work(&self, user: &UserId) -> Result<WorkPermit, Problem> {
        let permit = self.0.work.acquire(user, Cost::REQUEST).await;
        permit.map_err(|exceeded| {
            Limit::Work.record_exceeded_by_user(user);
            Problem::too_many_requests(exceeded.wait)
        })
    }

    /// Waits until there is memory for a body. `length` is its `Content-Length`, if it has one.
    pub(super) async fn reserve_body(&self, length: Option<u64>) -> OwnedSemaphorePermit {
        let length = length.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        self.0.bodies.acquire(length.unwrap_or(Self::UNKNOWN_LENGTH)).await
    }

    /// Waits until there is memory for drafts for many users. Call it after
    /// [`reserve_body`](Self::reserve_body), never before, so that no two requests wait for each other.
    pub(super) async fn reserve_drafts(&self, text_bytes: usize) -> OwnedSemaphorePermit {
        self.0.drafts.acquire(text_bytes).await
    }

    /// Charges the user's work budget for a page that was read.
    pub(super) fn charge_page(&self, user: &UserId, page: &[Notification]) {
        self.0.work.charge(user, Cost::of_page(page));
    }

    /// Counts a request of an authenticated caller, and rejects it if the caller exceeds the rate limit.
    pub(super) fn limit_request(&self, user: &UserId) -> Result<(), Problem> {
        check_rate(self.0.requests.as_ref(), Limit::Requests, &RateKey::User(user))
    }

    /// Counts a request that creates notifications, and rejects it if the caller exceeds the rate limit of writes.
    pub(super) fn limit_write(&self, user: &UserId) -> Result<(), Problem> {
        check_rate(self.0.writes.as_ref(), Limit::Writes, &RateKey::User(user))
    }

    /// Counts a request without a valid token, and rejects it if its network exceeds the rate limit. The user
    /// who is named in an invalid token is not counted, because anyone can forge such a token.
    pub(super) fn limit_anonymous(&self, extensions: &Extensions) -> Result<(), Problem> {
        let network = ClientAddress::of(extensions).map(network_of);
        check_rate(self.0.requests.as_ref(), Limit::Requests, &RateKey::Network(network))
    }
}

fn check_rate(rates: Option<&RateByKey>, limit: Limit, key: &RateKey<'_>) -> Result<(), Problem> {
    let Some(rates) = rates else { return Ok(()) };
    rates.take(key).map_err(|exceeded| {
        match *key {
            RateKey::User(user) => limit.record_exceeded_by_user(user),
            RateKey::Network(Some(network)) => limit.record_exceeded_by_address(network),
            RateKey::Network(None) => limit.record_exceeded(),
        }
        Problem::too_many_requests(exceeded.wait)
    })
}
