use std::sync::Arc;

use belfry_application::ports::{Clock, IdGenerator};
use belfry_domain::{Draft, NotificationId, UserId};

use crate::wire::{DraftForm, InvalidForm};

/// Builds drafts from request bodies: adds the id and the time that a form leaves out.
#[derive(Clone)]
#[expect(missing_docs, reason = "the types say it")]
pub struct DraftFactory {
    pub ids: Arc<dyn IdGenerator>,
    pub clock: Arc<dyn Clock>,
}

impl DraftFactory {
    /// The draft for `recipient`, or else for the form's own recipient.
    pub(super) fn draft(
        &self,
        form: DraftForm,
        recipient: Option<UserId>,
    ) -> Result<Draft, InvalidForm> {
        form.read(recipient, || self.new_id(), self.clock.now())
    }

    pub(super) fn new_id(&self) -> NotificationId {
        self.ids.notification_id()
    }
}
