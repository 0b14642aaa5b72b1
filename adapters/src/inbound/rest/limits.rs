//! Limits on the requests of each caller.

use std::net::IpAddr;
use std::sync::Arc;

use belfry_domain::{Notification, UserId};
use http::Extensions;

use super::problem::Problem;
use crate::limits::{Cost, Limit, PerSecond, RateByKey, UserWork, WorkPermit, network_of};
use crate::transport::ClientAddress;

/// Rate limits of callers, and the limit on work in the store for each user.
#[derive(Clone)]
pub struct RequestLimits(Arc<Limits>);

struct Limits {
    requests: Option<RateByKey>,
    writes: Option<RateByKey>,
    work: UserWork,
}

/// Requests with the same key share a rate limit.
#[derive(Hash)]
enum RateKey<'a> {
    User(&'a UserId),
    Network(Option<IpAddr>),
}

impl RequestLimits {
    /// `requests` and `writes` (requests that create notifications) are for each caller, `None` for no
    /// limit. `work` is for each user and includes the work of the user's devices.
    pub fn new(requests: Option<PerSecond>, writes: Option<PerSecond>, work: UserWork) -> Self {
        let [requests, writes] = [requests, writes].map(|rate| rate.map(RateByKey::of));
        Self(Arc::new(Limits { requests, writes, work }))
    }

    /// Waits until the user may start another operation in the store. For users who access their own inbox:
    /// a service that creates notifications acts for many users and has a limit of its own.
    pub(super) async fn acquire_work(&self, user: &UserId) -> Result<WorkPermit, Problem> {
        let permit = self.0.work.acquire(user, Cost::REQUEST).await;
        permit.map_err(|exceeded| {
            Limit::Work.record_exceeded_by_user(user);
            Problem::too_many_requests(exceeded.wait)
        })
    }

    /// Charges the user for a page that was read.
    pub(super) fn charge_page(&self, user: &UserId, page: &[Notification]) {
        self.0.work.charge(user, Cost::of_page(page));
    }

    /// Counts a request of an authenticated caller.
    pub(super) fn count_request(&self, user: &UserId) -> Result<(), Problem> {
        count(self.0.requests.as_ref(), Limit::Requests, &RateKey::User(user))
    }

    /// Counts a request that creates notifications.
    pub(super) fn count_write(&self, user: &UserId) -> Result<(), Problem> {
        count(self.0.writes.as_ref(), Limit::Writes, &RateKey::User(user))
    }

    /// Counts a request without a valid token, by network: the user in an invalid token proves nothing.
    pub(super) fn count_anonymous(&self, extensions: &Extensions) -> Result<(), Problem> {
        let network = ClientAddress::of(extensions).map(network_of);
        count(self.0.requests.as_ref(), Limit::Requests, &RateKey::Network(network))
    }
}

fn count(rates: Option<&RateByKey>, limit: Limit, key: &RateKey<'_>) -> Result<(), Problem> {
    let Some(rates) = rates else { return Ok(()) };
    rates.take(key).map_err(|exceeded| {
        match *key {
            RateKey::User(user) => limit.record_exceeded_by_user(user),
            RateKey::Network(Some(network)) => limit.record_exceeded_by(network),
            RateKey::Network(None) => limit.record_exceeded(),
        }
        Problem::too_many_requests(exceeded.wait)
    })
}
