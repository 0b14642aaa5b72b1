use std::convert::Infallible;

use belfry_application::ports::IdempotentOutcome;
use belfry_domain::Marked;

use crate::outbound::relational::{CreateWrite, EditWrite, GroupedWrite};

/// A change to inboxes, on behalf of one caller.
#[derive(Debug)]
pub(super) enum InboxWrite {
    Create(CreateWrite),
    Edit(EditWrite),
}

/// The outcome of an [`InboxWrite`] of the same name.
#[derive(Debug)]
pub(super) enum WriteOutcome {
    Create(IdempotentOutcome),
    Edit(Marked),
}

impl GroupedWrite for InboxWrite {
    type Outcome = WriteOutcome;
    /// Writes of a group run one after the other, so each finds the result of those before it.
    type ConflictKey<'a> = Infallible;

    fn conflict_key(&self) -> Option<Infallible> {
        None
    }

    fn rows(&self) -> usize {
        match self {
            Self::Create(create) => create.rows(),
            Self::Edit(edit) => edit.rows(),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Create(create) => create.bytes(),
            Self::Edit(edit) => edit.bytes(),
        }
    }
}

impl InboxWrite {
    /// Whether it is a create without an idempotency key.
    pub(super) const fn is_plain_create(&self) -> bool {
        matches!(self, Self::Create(CreateWrite { key: None, .. }))
    }
}
