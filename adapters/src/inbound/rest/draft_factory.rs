use std::sync::Arc;

use belfry_application::ports::{Clock, IdGenerator};
use belfry_domain::{Draft, LinkSchemes, NotificationId, UserId};

use crate::wire::{DraftForm, InvalidForm, check_link};

/// Builds drafts from request bodies. Adds an id and a creation time if the body has none.
#[derive(Clone)]
#[expect(missing_docs, reason = "the ports document themselves")]
pub struct DraftFactory {
    pub ids: Arc<dyn IdGenerator>,
    pub clock: Arc<dyn Clock>,
    /// The schemes that links may have.
    pub links: LinkSchemes,
}

impl DraftFactory {
    /// `recipient` overrides the recipient in the form. If it is `None`, the form must have a recipient.
    pub(super) fn draft(
        &self,
        form: DraftForm,
        recipient: Option<UserId>,
    ) -> Result<Draft, InvalidForm> {
        let draft = form.read(recipient, || self.new_id(), self.clock.now())?;
        check_link(&draft, &self.links)?;
        Ok(draft)
    }

    pub(super) fn new_id(&self) -> NotificationId {
        self.ids.notification_id()
    }
}
