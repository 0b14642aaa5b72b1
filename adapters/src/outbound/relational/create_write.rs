use belfry_application::ports::{IdempotencyKey, IdempotentOutcome};
use belfry_application::trace::{self, TraceParent};
use belfry_domain::{Draft, Receipt, UserId};

use super::group_commit::GroupedWrite;

/// The drafts of one caller: all of them become notifications, or none.
#[derive(Debug)]
pub(crate) struct CreateWrite {
    pub(crate) drafts: Vec<Draft>,
    pub(crate) key: Option<IdempotencyKey>,
    pub(crate) trace: Option<TraceParent>,
}

impl CreateWrite {
    /// A write in the trace of the current task.
    pub(crate) fn new(drafts: Vec<Draft>, key: Option<IdempotencyKey>) -> Self {
        Self { drafts, key, trace: trace::current() }
    }
}

/// What `of` returns for the write of each draft, in the order of the drafts.
pub(crate) fn per_draft<'w, T: Clone>(
    writes: impl IntoIterator<Item = &'w CreateWrite>,
    mut of: impl FnMut(&'w CreateWrite) -> T,
) -> Vec<T> {
    let mut all = Vec::new();
    for write in writes {
        all.extend(std::iter::repeat_n(of(write), write.drafts.len()));
    }
    all
}

/// The receipts of a create without an idempotency key.
pub(crate) fn receipts(outcome: IdempotentOutcome) -> Vec<Receipt> {
    match outcome {
        IdempotentOutcome::Executed(receipts) => receipts,
        IdempotentOutcome::Repeated(_) | IdempotentOutcome::KeyReused => {
            unreachable!("there is no idempotency key")
        }
    }
}

impl GroupedWrite for CreateWrite {
    type Outcome = IdempotentOutcome;
    /// The caller and its key.
    type ConflictKey<'a> = (&'a UserId, &'a str);

    /// A key that is used again must find the result of its first use.
    fn conflict_key(&self) -> Option<(&UserId, &str)> {
        self.key.as_ref().map(|key| (key.caller(), key.key()))
    }

    fn rows(&self) -> usize {
        self.drafts.len()
    }

    fn bytes(&self) -> usize {
        self.drafts.iter().map(Draft::text_bytes).sum()
    }
}
