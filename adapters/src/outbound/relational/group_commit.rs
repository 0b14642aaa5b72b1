use std::collections::{HashSet, VecDeque};
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use belfry_application::ports::PortError;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Group commit: writes of concurrent callers share a transaction.
///
/// While one group is written, the next one gathers. A write that finds no group under way starts at once, so
/// no caller waits for a timer. Each caller gets the result of its write.
///
/// A write that has been submitted is executed even if its caller goes away.
///
/// PostgreSQL does the same one level deeper: it flushes its log once for several commits
/// (<https://www.postgresql.org/docs/current/wal-configuration.html>). Sharing the transaction also shares the round
/// trips, the plan and the index lookups.
#[derive(Debug)]
pub(crate) struct GroupCommit<W: GroupedWrite> {
    queue: Arc<Mutex<Queue<W>>>,
}

/// A write of one caller.
pub(crate) trait GroupedWrite: Send + Sync + 'static {
    type Outcome: Debug + Send + 'static;

    /// Two writes with the same key must not be in one group.
    type ConflictKey<'a>: Eq + Hash
    where
        Self: 'a;

    /// `None` if the write conflicts with no other.
    fn conflict_key(&self) -> Option<Self::ConflictKey<'_>>;

    /// The number of rows that it names, or 1 if it names none: a measure for the size of a group.
    fn rows(&self) -> usize;

    /// The size of its texts.
    fn bytes(&self) -> usize;
}

/// Executes groups of writes.
pub(crate) trait GroupWriter<W: GroupedWrite>: Send + Sync + 'static {
    /// Executes all writes in order, or none of them. Returns one outcome per write.
    ///
    /// Must not wait for a locked inbox, not even if the group is a single write: all later writes would wait, too.
    fn write_group(
        &self,
        writes: &[W],
    ) -> impl Future<Output = Result<Vec<W::Outcome>, GroupError>> + Send;

    /// Executes one write. May wait for locked inboxes.
    fn write_alone(&self, write: &W) -> impl Future<Output = Result<W::Outcome, PortError>> + Send;
}

/// Why a group was not written.
#[derive(Debug)]
pub(crate) enum GroupError {
    /// Another transaction changes what one of the writes changes. Nothing was written.
    Contended,
    Port(PortError),
}

impl<E> From<E> for GroupError
where
    PortError: From<E>,
{
    fn from(error: E) -> Self {
        Self::Port(error.into())
    }
}

/// The limits of a group. A larger write is a group by itself.
const MAX_GROUP: Size = Size { writes: usize::MAX, rows: 500, bytes: 1024 * 1024 };

/// The limits of the writes that wait. Further ones are `Unavailable`. A single write may exceed them.
const MAX_WAITING: Size = Size { writes: 10_000, rows: 50_000, bytes: 16 * 1024 * 1024 };

/// The size of several writes.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    writes: usize,
    rows: usize,
    bytes: usize,
}

impl Size {
    fn with(self, write: &impl GroupedWrite) -> Self {
        let Self { writes, rows, bytes } = self;
        Self { writes: writes + 1, rows: rows + write.rows(), bytes: bytes + write.bytes() }
    }

    const fn without(self, Self { writes, rows, bytes }: Self) -> Self {
        Self { writes: self.writes - writes, rows: self.rows - rows, bytes: self.bytes - bytes }
    }

    const fn fits_into(self, max: Self) -> bool {
        self.writes <= max.writes && self.rows <= max.rows && self.bytes <= max.bytes
    }
}

#[derive(Debug)]
struct Queue<W: GroupedWrite> {
    waiting: VecDeque<Waiting<W>>,
    /// The size of `waiting`.
    size: Size,
    /// Whether a task is writing groups. It ends when the queue is empty.
    is_running: bool,
}

#[derive(Debug)]
struct Waiting<W: GroupedWrite> {
    write: W,
    reply: oneshot::Sender<Result<W::Outcome, PortError>>,
}

impl<W: GroupedWrite> Default for GroupCommit<W> {
    fn default() -> Self {
        let queue = Queue { waiting: VecDeque::new(), size: Size::default(), is_running: false };
        Self { queue: Arc::new(Mutex::new(queue)) }
    }
}

impl<W: GroupedWrite> GroupCommit<W> {
    /// Executes the write together with others. `writer` is called only if no task is running; the result writes all
    /// groups until the queue is empty.
    pub(crate) async fn submit<G: GroupWriter<W>>(
        &self,
        write: W,
        writer: impl FnOnce() -> G,
    ) -> Result<W::Outcome, PortError> {
        let (reply, result) = oneshot::channel();
        let starts = self.queue.lock().push(Waiting { write, reply })?;
        if starts {
            // In its own task, because a caller that goes away must not take the writes of others along.
            let running = Running { queue: self.queue.clone(), is_done: false };
            tokio::spawn(running.write_all(writer()));
        }
        result.await.unwrap_or_else(|_| Err(PortError::failed("the write was interrupted")))
    }
}

impl<W: GroupedWrite> Queue<W> {
    /// Returns whether the caller must start a task.
    fn push(&mut self, waiting: Waiting<W>) -> Result<bool, PortError> {
        let size = self.size.with(&waiting.write);
        if !self.waiting.is_empty() && !size.fits_into(MAX_WAITING) {
            return Err(PortError::unavailable("too many writes are waiting"));
        }
        self.size = size;
        self.waiting.push_back(waiting);
        Ok(!std::mem::replace(&mut self.is_running, true))
    }

    /// The oldest writes that fit into a group. `None` if none is waiting; the task then ends.
    fn next_group(&mut self) -> Option<Vec<Waiting<W>>> {
        let size = self.group_size();
        if size.writes == 0 {
            self.is_running = false;
            return None;
        }
        self.size = self.size.without(size);
        Some(self.waiting.drain(..size.writes).collect())
    }

    /// The size of the next group.
    fn group_size(&self) -> Size {
        let (mut size, mut keys) = (Size::default(), HashSet::new());
        for Waiting { write, .. } in &self.waiting {
            let with_next = size.with(write);
            let conflicts = write.conflict_key().is_some_and(|key| !keys.insert(key));
            if size.writes > 0 && (!with_next.fits_into(MAX_GROUP) || conflicts) {
                break;
            }
            size = with_next;
        }
        size
    }
}

/// The task that writes the groups.
struct Running<W: GroupedWrite> {
    queue: Arc<Mutex<Queue<W>>>,
    /// Whether the task has ended normally: the queue is empty, and the next write starts a new task.
    is_done: bool,
}

impl<W: GroupedWrite> Running<W> {
    async fn write_all<G: GroupWriter<W>>(mut self, store: G) {
        let store = Arc::new(store);
        loop {
            let next = self.queue.lock().next_group();
            let Some(group) = next else {
                self.is_done = true;
                return;
            };
            write_group(&store, group).await;
        }
    }
}

impl<W: GroupedWrite> Drop for Running<W> {
    /// After a panic, or at the end of the runtime: the writes that wait fail, and the next one starts anew.
    fn drop(&mut self) {
        if !self.is_done {
            let mut queue = self.queue.lock();
            queue.is_running = false;
            queue.waiting.clear();
            queue.size = Size::default();
        }
    }
}

/// Writes a group and sends each caller its result.
///
/// If the group fails and one of its writes may be the reason, each write is executed alone, in its own task: one
/// that waits for a lock holds up no other.
async fn write_group<W: GroupedWrite, G: GroupWriter<W>>(store: &Arc<G>, group: Vec<Waiting<W>>) {
    let (writes, replies): (Vec<_>, Vec<_>) =
        group.into_iter().map(|Waiting { write, reply }| (write, reply)).unzip();
    let results = match store.write_group(&writes).await {
        Ok(outcomes) => outcomes.into_iter().map(Ok).collect(),
        Err(GroupError::Port(error)) if writes.len() == 1 => vec![Err(error)],
        Err(GroupError::Port(error @ PortError::Unavailable(_))) => {
            writes.iter().map(|_| Err(error.clone_as_text())).collect()
        }
        Err(_) => {
            for (write, reply) in writes.into_iter().zip(replies) {
                tokio::spawn(write_alone(store.clone(), Waiting { write, reply }));
            }
            return;
        }
    };
    for (reply, result) in replies.into_iter().zip(results) {
        // The caller may have gone away.
        let _ = reply.send(result);
    }
}

/// The outcome of a group of one write.
pub(crate) fn only_outcome<T>(mut outcomes: Vec<T>) -> Result<T, PortError> {
    outcomes.pop().ok_or_else(|| PortError::failed("a write without an outcome"))
}

async fn write_alone<W: GroupedWrite, G: GroupWriter<W>>(store: Arc<G>, waiting: Waiting<W>) {
    let result = store.write_alone(&waiting.write).await;
    let _ = waiting.reply.send(result);
}

#[cfg(test)]
mod tests;
