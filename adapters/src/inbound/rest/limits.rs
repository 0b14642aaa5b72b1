//! How many requests each caller may make.

use std::net::IpAddr;
use std::sync::Arc;

use belfry_domain::UserId;
use http::Extensions;

use super::problem::Problem;
use crate::limits::{
    Cost, Limit, PerSecond, RateByKey, RateExceeded, UserWork, WorkPermit, network_of,
};
use crate::transport::ClientAddress;

/// What each caller may ask for at once.
#[derive(Clone)]
pub struct RequestLimits(Arc<Rates>);

struct Rates {
    requests: Option<RateByKey>,
    writes: Option<RateByKey>,
    work: UserWork,
}

/// Whose requests are counted together.
#[derive(Hash)]
enum Counted<'a> {
    User(&'a UserId),
    Network(Option<IpAddr>),
}

impl RequestLimits {
    /// So many requests of each caller, and so many that write notifications; and so much work for each
    /// user, which is shared with the user's devices.
    pub fn new(requests: Option<PerSecond>, writes: Option<PerSecond>, work: UserWork) -> Self {
        let [requests, writes] = [requests, writes].map(|rate| rate.map(RateByKey::of));
        Self(Arc::new(Rates { requests, writes, work }))
    }

    /// Waits until another operation of this user may begin in the store. For users who work on their own
    /// inbox: a service that writes notifications does that for many users and has a limit of its own.
    pub(super) async fn begin_work(&self, user: &UserId) -> Result<WorkPermit, Problem> {
        self.0
            .work
            .acquire(user, Cost::REQUEST)
            .await
            .map_err(|exceeded| refuse(Limit::Work, exceeded))
    }

    /// Counts notifications that were read for this user.
    pub(super) fn charge_notifications(&self, user: &UserId, count: usize) {
        self.0.work.charge(user, Cost::of_notifications(count));
    }

    /// Counts a request of somebody whose token holds.
    pub(super) fn count(&self, user: &UserId) -> Result<(), Problem> {
        take(self.0.requests.as_ref(), Limit::Requests, &Counted::User(user))
    }

    /// Counts a request that writes notifications.
    pub(super) fn count_write(&self, user: &UserId) -> Result<(), Problem> {
        take(self.0.writes.as_ref(), Limit::Writes, &Counted::User(user))
    }

    /// Counts a request of whoever shows no token that holds: anybody can say that they are ada.
    pub(super) fn count_stranger(&self, extensions: &Extensions) -> Result<(), Problem> {
        let network = ClientAddress::of(extensions).map(network_of);
        take(self.0.requests.as_ref(), Limit::Requests, &Counted::Network(network))
    }
}

fn take(rates: Option<&RateByKey>, limit: Limit, who: &Counted<'_>) -> Result<(), Problem> {
    let Some(rates) = rates else { return Ok(()) };
    rates.take(who).map_err(|exceeded| refuse(limit, exceeded))
}

fn refuse(limit: Limit, exceeded: RateExceeded) -> Problem {
    limit.record_exceeded();
    Problem::too_many_requests(exceeded.wait)
}
