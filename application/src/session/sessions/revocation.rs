//! Sessions end when their token is revoked.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use belfry_domain::UserRoom;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Sessions;
use crate::ports::{CloseReason, Device, Mark, PortError, Revocation, Revocations};
use crate::use_cases::Refusal;

/// How often it is looked for new revocations: what makes them known within a second everywhere,
/// whether or not there is a broker.
const EVERY: Duration = Duration::from_millis(250);

/// How often all of them are read again: those that the store has forgotten are forgotten here then.
const ALL_EVERY: Duration = Duration::from_mins(10);

impl<D: Device> Sessions<D> {
    /// Learns what is revoked and ends the sessions that live on it, until told to stop. Until it has
    /// read all that there is, nobody is let in.
    pub async fn poll_revocations(&self, store: Arc<dyn Revocations>, stop: CancellationToken) {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut all_read: Option<Instant> = None;
        let mut mark = None;
        let mut answers = true;
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            if all_read.is_none_or(|then| then.elapsed() > ALL_EVERY) {
                mark = None;
            }
            let Some(learned) = stop.run_until_cancelled(self.learn(&*store, mark)).await else {
                return;
            };
            match learned {
                Ok(next) => {
                    if mark.is_none() {
                        all_read = Some(Instant::now());
                    }
                    mark = Some(next);
                    answers = true;
                }
                Err(error) => {
                    if answers {
                        let error = &error as &dyn Error;
                        warn!(error, "what is revoked now is not learned until the store answers");
                    }
                    answers = false;
                }
            }
        }
    }

    /// Waits until it is known what is revoked.
    pub async fn revocations_known(&self) {
        self.sign_in.revoked().known().await;
    }

    async fn learn(&self, store: &dyn Revocations, mark: Option<Mark>) -> Result<Mark, PortError> {
        let (news, next) = store.since(mark).await?;
        let revoked = self.sign_in.revoked();
        let concerned: Vec<_> = if mark.is_none() {
            revoked.learn_all(news.iter().cloned());
            news
        } else {
            news.into_iter().filter(|one| revoked.learn(one)).collect()
        };
        for one in &concerned {
            self.end_revoked(one);
        }
        Ok(next)
    }

    fn end_revoked(&self, revocation: &Revocation) {
        let room = UserRoom::of(revocation.user.clone());
        let mut over = self.rooms.present_in(&room);
        over.retain(|session| session.is_revoked(self.sign_in.revoked()));
        if !over.is_empty() {
            info!(user = %revocation.user, sessions = over.len(), "tokens revoked");
        }
        for session in over {
            self.end(&session, CloseReason::TokenRevoked, &Refusal::TokenRevoked);
        }
    }
}
