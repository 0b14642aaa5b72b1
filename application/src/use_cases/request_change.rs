use std::sync::Arc;

use belfry_domain::UserId;

use crate::ports::{InboxOwner, PortError, RequestedChange};

/// Forward mode: passes a change that a device requests on to the service that keeps the inboxes. The service
/// then sends the events of the change, as for any other change.
#[derive(Clone)]
pub struct RequestChange {
    owner: Arc<dyn InboxOwner>,
}

impl RequestChange {
    /// Passes changes on to `owner`.
    pub fn new(owner: Arc<dyn InboxOwner>) -> Self {
        Self { owner }
    }

    /// Returns when the service is sure to receive the request. A request for no notification has no effect.
    pub async fn run(&self, user: &UserId, change: &RequestedChange) -> Result<(), PortError> {
        match change {
            RequestedChange::MarkRead(ids) if ids.is_empty() => Ok(()),
            change => self.owner.request(user, change).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{RecordingInboxOwner, id, user};

    #[tokio::test]
    async fn change_is_passed_on_unless_it_concerns_no_notification() {
        let owner = Arc::new(RecordingInboxOwner::default());
        let request = RequestChange::new(owner.clone());
        let ada = user("ada");
        let changes = [
            RequestedChange::MarkRead(vec![id("n1")]),
            RequestedChange::MarkAllRead,
            RequestedChange::Delete(id("n2")),
        ];
        request.run(&ada, &RequestedChange::MarkRead(Vec::new())).await.unwrap();
        for change in &changes {
            request.run(&ada, change).await.unwrap();
        }
        assert_eq!(owner.requests(), changes.map(|change| (ada.clone(), change)));
    }
}
