use std::sync::Arc;

use belfry_application::ports::{Clock, IdGenerator};
use belfry_application::use_cases::CreateNotification;
use belfry_domain::{Draft, NotificationId, UserId};

use crate::wire::{DraftForm, InvalidForm};

/// What it takes to write notifications.
#[derive(Clone)]
#[expect(missing_docs, reason = "each is what its type says")]
pub struct Intake {
    pub create: CreateNotification,
    pub ids: Arc<dyn IdGenerator>,
    pub clock: Arc<dyn Clock>,
}

impl Intake {
    /// The draft that a form asks for, for its own recipient or for this one.
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
