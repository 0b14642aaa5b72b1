use std::collections::{HashSet, VecDeque};
use std::iter::repeat_with;

use belfry_application::trace::{self, TraceParent};

use super::message_handler::{HandlerError, MessageHandler};

/// Pending messages of the ingest queue, executed in batches.
///
/// **Bad messages.** The creations of a batch share transactions. When a batch fails although the store works for
/// others, each further run halves the batch size, until the message at fault is alone.
///
/// **Outages.** After a run that finished no message, the store counts as down. Each run then sends one
/// probe: the pending message with the fewest probes so far. This neither floods a store that is down nor
/// lets one bad message make the outage look permanent. A failure during an outage never counts against
/// a message, even if the outage affects only some commands.
///
/// **Ordering.** Messages with the same ordering key (the user) run in arrival order. A message that must
/// be retried blocks later messages of its key and no others.
pub(super) struct BatchExecutor<M, C> {
    /// In arrival order.
    pending: VecDeque<Pending<M, C>>,
    next_sequence: u64,
    batch_size: usize,
    /// The last run finished no message.
    store_down: bool,
}

/// A message and the command decoded from it.
pub(super) struct Pending<M, C> {
    message: M,
    command: C,
    trace: Option<TraceParent>,
    /// Arrival order.
    sequence: u64,
    /// Attempts that failed alone while the store worked for others; see [`MAX_FAILURES`].
    failures: u8,
    /// Unsuccessful probes during outages.
    probes: u32,
    /// Whether any attempt has failed, alone or in a batch.
    has_failed: bool,
}

/// A message that has failed alone this often is finished. One failure is not enough: the store may have gone
/// down in the middle of the run.
const MAX_FAILURES: u8 = 2;

/// After this many unsuccessful probes of each key's oldest message, later messages are probed too. Otherwise
/// one bad message from the only active user would keep an outage from ever ending. With the backoff between
/// the runs, so many probes take minutes.
const MAX_HEAD_PROBES: u32 = 100;

/// The result of one run.
pub(super) struct BatchRun<M> {
    /// Messages that are no longer pending, with their results. No error is due to an outage: the command was
    /// rejected, came too early, or failed alone [`MAX_FAILURES`] times while others succeeded.
    pub(super) finished: Vec<(M, Result<(), HandlerError>)>,
    /// The error of a message that failed and is still pending. `None` if there is none.
    pub(super) blocked_by: Option<HandlerError>,
}

impl<M> BatchRun<M> {
    /// Whether the store worked for any message.
    pub(super) fn made_progress(&self) -> bool {
        !self.finished.is_empty()
    }
}

impl<M, C> Pending<M, C> {
    pub(super) fn new(message: M, command: C, trace: Option<TraceParent>) -> Self {
        Self { message, command, trace, sequence: 0, failures: 0, probes: 0, has_failed: false }
    }
}

impl<M, C> Default for BatchExecutor<M, C> {
    fn default() -> Self {
        Self {
            pending: VecDeque::new(),
            next_sequence: 0,
            batch_size: usize::MAX,
            store_down: false,
        }
    }
}

impl<M, C: Clone> BatchExecutor<M, C> {
    pub(super) fn push(&mut self, mut pending: Pending<M, C>) {
        pending.sequence = self.next_sequence;
        self.next_sequence += 1;
        self.pending.push_back(pending);
    }

    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Removes the messages whose commands have expired.
    pub(super) fn take_expired<H: MessageHandler<Command = C>>(&mut self, handler: &H) -> Vec<M> {
        let expired = |pending: &Pending<M, C>| handler.has_expired(&pending.command);
        // The usual case: no command has expired.
        if !self.pending.iter().any(expired) {
            return Vec::new();
        }
        let all = std::mem::take(&mut self.pending);
        let (expired, others): (Vec<_>, Vec<_>) = all.into_iter().partition(expired);
        self.pending = others.into();
        expired.into_iter().map(|pending| pending.message).collect()
    }

    /// Runs the pending messages, each at most once. Messages that must be retried stay pending.
    pub(super) async fn run<H: MessageHandler<Command = C>>(&mut self, handler: &H) -> BatchRun<M> {
        let pending_count = self.pending.len();
        let mut finished = Vec::new();
        let mut failed = Vec::new();
        let mut blocked = HashSet::new();
        // One failed batch may just contain a bad message. Two in a row mean that the store is down. If it
        // was down already, the batch is a single probe.
        let mut failures_left = if self.store_down { 1 } else { 2 };
        let mut batch =
            if self.store_down { self.probe::<H>() } else { self.next_batch::<H>(&blocked) };
        while !batch.is_empty() {
            let alone = batch.len() == 1;
            let results = execute(handler, &batch).await.into_iter();
            // If the handler returns fewer results than commands, the others count as failed.
            let missing = repeat_with(|| Err(HandlerError::Failed("no result".into())));
            for (pending, result) in batch.into_iter().zip(results.chain(missing)) {
                match result {
                    Err(error @ (HandlerError::Unavailable(_) | HandlerError::Failed(_))) => {
                        blocked.insert(H::ordering_key(&pending.command));
                        failed.push(FailedAttempt { pending, alone, error });
                    }
                    result => finished.push((pending.message, result)),
                }
            }
            if finished.is_empty() {
                failures_left -= 1;
                if failures_left == 0 {
                    break;
                }
            }
            batch = self.next_batch::<H>(&blocked);
        }
        self.store_down = finished.is_empty();
        let mut run = BatchRun { finished, blocked_by: None };
        self.retain(failed, &mut run);
        if self.pending.is_empty() {
            self.batch_size = usize::MAX;
        } else if !self.store_down {
            self.batch_size = (self.batch_size.min(pending_count) / 2).max(1);
        }
        run
    }

    /// Takes the next batch, without messages of the `blocked` keys. Keys without a failed message come first, so
    /// that failing messages delay no others.
    fn next_batch<H: MessageHandler<Command = C>>(
        &mut self,
        blocked: &HashSet<H::OrderingKey>,
    ) -> Vec<Pending<M, C>> {
        // The usual case: no message has failed.
        if blocked.is_empty()
            && self.pending.len() <= self.batch_size
            && !self.pending.iter().any(|pending| pending.has_failed)
        {
            return self.pending.drain(..).collect();
        }
        let key = |pending: &Pending<M, C>| H::ordering_key(&pending.command);
        let failing: HashSet<_> =
            self.pending.iter().filter(|pending| pending.has_failed).map(key).collect();
        let is_free = |pending: &Pending<M, C>| !blocked.contains(&key(pending));
        let is_fresh =
            |pending: &Pending<M, C>| is_free(pending) && !failing.contains(&key(pending));
        let any_fresh = self.pending.iter().any(is_fresh);
        let mut batch = Vec::new();
        let mut others = VecDeque::with_capacity(self.pending.len());
        for pending in self.pending.drain(..) {
            let eligible = if any_fresh { is_fresh(&pending) } else { is_free(&pending) };
            if eligible && batch.len() < self.batch_size {
                batch.push(pending);
            } else {
                others.push_back(pending);
            }
        }
        self.pending = others;
        batch
    }

    /// Takes the message to probe the store with: of each key's oldest message, the one with the fewest probes. If
    /// all of these have had [`MAX_HEAD_PROBES`] probes, it takes the message with the fewest probes of all.
    fn probe<H: MessageHandler<Command = C>>(&mut self) -> Vec<Pending<M, C>> {
        let mut keys = HashSet::new();
        let heads = self
            .pending
            .iter()
            .enumerate()
            .filter(|(_, pending)| keys.insert(H::ordering_key(&pending.command)));
        let head = heads.min_by_key(|(_, pending)| pending.probes);
        let any = || self.pending.iter().enumerate().min_by_key(|(_, pending)| pending.probes);
        let chosen = head.filter(|(_, pending)| pending.probes < MAX_HEAD_PROBES).or_else(any);
        let index = chosen.map(|(index, _)| index);
        index.and_then(|index| self.pending.remove(index)).into_iter().collect()
    }

    /// Returns failed messages to the pending ones, in arrival order. Messages that failed alone too often are
    /// finished instead.
    fn retain(&mut self, failed: Vec<FailedAttempt<M, C>>, run: &mut BatchRun<M>) {
        for FailedAttempt { mut pending, alone, error } in failed {
            let may_be_at_fault = matches!(error, HandlerError::Failed(_));
            pending.failures += u8::from(may_be_at_fault && alone && !self.store_down);
            pending.probes += u32::from(alone && self.store_down);
            pending.has_failed = true;
            if pending.failures >= MAX_FAILURES {
                run.finished.push((pending.message, Err(error)));
            } else {
                run.blocked_by = Some(error);
                self.pending.push_back(pending);
            }
        }
        self.pending.make_contiguous().sort_by_key(|pending| pending.sequence);
    }
}

/// A message whose attempt failed.
struct FailedAttempt<M, C> {
    pending: Pending<M, C>,
    /// Whether the message was alone in its batch.
    alone: bool,
    error: HandlerError,
}

/// Executes one batch. If all its messages have the same trace, the execution is a part of that trace.
async fn execute<M, H: MessageHandler>(
    handler: &H,
    batch: &[Pending<M, H::Command>],
) -> Vec<Result<(), HandlerError>> {
    let commands = batch.iter().map(|pending| pending.command.clone()).collect();
    let first = batch.first().and_then(|pending| pending.trace.as_ref());
    let common =
        first.filter(|trace| batch.iter().all(|pending| pending.trace.as_ref() == Some(trace)));
    trace::scope(common.cloned(), handler.run(commands)).await
}

#[cfg(test)]
mod tests;
