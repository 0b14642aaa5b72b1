use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::*;

/// A write of one row whose outcome is its own number.
#[derive(Debug, Clone, Copy, Default)]
struct Row {
    number: u32,
    rows: usize,
    bytes: usize,
    key: Option<u8>,
    /// Executed alone, it waits for ever.
    waits: bool,
}

impl GroupedWrite for Row {
    type Outcome = u32;
    type ConflictKey<'a> = u8;

    fn conflict_key(&self) -> Option<u8> {
        self.key
    }

    fn rows(&self) -> usize {
        self.rows
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}

fn row(number: u32) -> Row {
    Row { number, rows: 1, ..Row::default() }
}

/// Writes a group for each permit, and records it.
#[derive(Clone)]
struct Writer {
    permits: Arc<Semaphore>,
    groups: Arc<Mutex<Vec<Vec<u32>>>>,
    fail: fn(&[u32]) -> Result<(), GroupError>,
}

impl GroupWriter<Row> for Writer {
    async fn write_group(&self, writes: &[Row]) -> Result<Vec<u32>, GroupError> {
        self.permits.acquire().await.unwrap().forget();
        let numbers: Vec<_> = writes.iter().map(|row| row.number).collect();
        self.groups.lock().push(numbers.clone());
        (self.fail)(&numbers).map(|()| numbers)
    }

    async fn write_alone(&self, row: &Row) -> Result<u32, PortError> {
        if row.waits {
            std::future::pending::<()>().await;
        }
        match (self.fail)(&[row.number]) {
            Err(GroupError::Port(error)) => Err(error),
            Ok(()) | Err(GroupError::Contended) => Ok(row.number),
        }
    }
}

struct Fixture {
    commit: Arc<GroupCommit<Row>>,
    writer: Writer,
}

impl Fixture {
    fn new(fail: fn(&[u32]) -> Result<(), GroupError>) -> Self {
        let permits = Arc::new(Semaphore::new(0));
        let writer = Writer { permits, groups: Arc::default(), fail };
        Self { commit: Arc::default(), writer }
    }

    /// Submits writes one after the other; the first one is a group by itself.
    async fn submit(
        &self,
        rows: impl IntoIterator<Item = Row>,
    ) -> Vec<JoinHandle<Result<u32, PortError>>> {
        let mut calls = Vec::new();
        for row in rows {
            let (commit, writer) = (self.commit.clone(), self.writer.clone());
            calls.push(tokio::spawn(async move { commit.submit(row, || writer).await }));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        calls
    }

    fn let_write(&self) {
        self.writer.permits.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    fn groups(&self) -> Vec<Vec<u32>> {
        self.writer.groups.lock().clone()
    }
}

async fn results(calls: Vec<JoinHandle<Result<u32, PortError>>>) -> Vec<Result<u32, PortError>> {
    let mut results = Vec::new();
    for call in calls {
        results.push(call.await.unwrap());
    }
    results
}

#[tokio::test(start_paused = true)]
async fn writes_that_arrive_during_a_group_share_the_next_one() {
    let fixture = Fixture::new(|_| Ok(()));
    let calls = fixture.submit((1..=4).map(row)).await;
    fixture.let_write();
    let outcomes: Vec<_> = results(calls).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(outcomes, [1, 2, 3, 4]);
    assert_eq!(fixture.groups(), [vec![1], vec![2, 3, 4]]);
}

#[tokio::test(start_paused = true)]
async fn group_has_bounds_and_a_larger_write_is_a_group_by_itself() {
    let fixture = Fixture::new(|_| Ok(()));
    let rows = [
        row(1),
        Row { rows: MAX_GROUP.rows, ..row(2) },
        row(3),
        Row { bytes: MAX_GROUP.bytes, ..row(4) },
        Row { bytes: 1, ..row(5) },
        Row { rows: MAX_GROUP.rows + 1, ..row(6) },
        Row { bytes: MAX_GROUP.bytes + 1, ..row(7) },
    ];
    let calls = fixture.submit(rows).await;
    fixture.let_write();
    results(calls).await;
    assert_eq!(fixture.groups(), [vec![1], vec![2], vec![3, 4], vec![5], vec![6], vec![7]]);
}

#[tokio::test(start_paused = true)]
async fn two_writes_that_exclude_each_other_are_in_separate_groups() {
    let fixture = Fixture::new(|_| Ok(()));
    let key = |number, key| Row { key: Some(key), ..row(number) };
    let calls = fixture.submit([row(1), key(2, 7), key(3, 8), row(4), key(5, 7), row(6)]).await;
    fixture.let_write();
    results(calls).await;
    assert_eq!(fixture.groups(), [vec![1], vec![2, 3, 4], vec![5, 6]]);
}

#[tokio::test(start_paused = true)]
async fn write_at_fault_fails_alone() {
    let fixture = Fixture::new(|numbers| {
        if numbers.contains(&3) { Err(PortError::rejected("three").into()) } else { Ok(()) }
    });
    let calls = fixture.submit((1..=4).map(row)).await;
    fixture.let_write();
    let results: Vec<_> = results(calls).await.into_iter().map(Result::ok).collect();
    assert_eq!(results, [Some(1), Some(2), None, Some(4)]);
    assert_eq!(fixture.groups()[..2], [vec![1], vec![2, 3, 4]]);
}

#[tokio::test(start_paused = true)]
async fn outage_fails_a_group_with_one_attempt() {
    let fixture = Fixture::new(|numbers| match numbers {
        [1] => Ok(()),
        _ => Err(PortError::unavailable("down").into()),
    });
    let calls = fixture.submit((1..=3).map(row)).await;
    fixture.let_write();
    let results = results(calls).await;
    assert!(results[0].is_ok());
    assert!(results[1..].iter().all(|one| matches!(one, Err(PortError::Unavailable(_)))));
    assert_eq!(fixture.groups(), [vec![1], vec![2, 3]]);
}

#[tokio::test(start_paused = true)]
async fn contended_write_holds_up_neither_its_group_nor_later_ones() {
    let fixture = Fixture::new(|numbers| match numbers {
        [_] => Ok(()),
        _ => Err(GroupError::Contended),
    });
    let calls = fixture.submit([row(1), Row { waits: true, ..row(2) }, row(3)]).await;
    fixture.let_write();
    let later = fixture.submit([row(4)]).await;
    let mut all: Vec<_> = calls.into_iter().chain(later).collect();
    let waiting = all.remove(1);
    let outcomes: Vec<_> = results(all).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(outcomes, [1, 3, 4]);
    assert!(!waiting.is_finished());
}

#[tokio::test(start_paused = true)]
async fn contended_write_without_a_group_holds_up_no_later_one() {
    let fixture = Fixture::new(|numbers| match numbers {
        [1] => Err(GroupError::Contended),
        _ => Ok(()),
    });
    fixture.let_write();
    let waiting = fixture.submit([Row { waits: true, ..row(1) }]).await.remove(0);
    let later = fixture.submit([row(2)]).await;
    assert_eq!(results(later).await.remove(0).unwrap(), 2);
    assert!(!waiting.is_finished());
}

#[tokio::test(start_paused = true)]
async fn write_of_a_caller_that_went_away_is_executed() {
    let fixture = Fixture::new(|_| Ok(()));
    let mut calls = fixture.submit((1..=3).map(row)).await;
    calls.remove(0).abort();
    calls.remove(0).abort();
    fixture.let_write();
    assert_eq!(results(calls).await.remove(0).unwrap(), 3);
    assert_eq!(fixture.groups(), [vec![1], vec![2, 3]]);
}

#[tokio::test(start_paused = true)]
async fn panic_fails_the_writes_that_wait_and_no_later_ones() {
    let fixture = Fixture::new(|numbers| {
        assert_ne!(numbers, [1], "a bug");
        Ok(())
    });
    let calls = fixture.submit((1..=2).map(row)).await;
    fixture.let_write();
    assert!(results(calls).await.iter().all(|one| matches!(one, Err(PortError::Failed(_)))));
    let calls = fixture.submit([row(3)]).await;
    assert_eq!(results(calls).await.remove(0).unwrap(), 3);
}

#[tokio::test(start_paused = true)]
async fn too_many_waiting_writes_are_rejected() {
    let (many_rows, many_bytes) = (MAX_WAITING.rows / 4, MAX_WAITING.bytes / 4);
    for (write, count) in [
        (row(1), MAX_WAITING.writes),
        (Row { rows: many_rows, ..row(1) }, 4),
        (Row { bytes: many_bytes, ..row(1) }, 4),
        // A single write is never rejected.
        (Row { rows: MAX_WAITING.rows + 1, ..row(1) }, 1),
        (Row { bytes: MAX_WAITING.bytes + 1, ..row(1) }, 1),
    ] {
        let mut queue =
            Queue { waiting: VecDeque::new(), size: Size::default(), is_running: false };
        for _ in 0..2 {
            for _ in 0..count {
                let (reply, _) = oneshot::channel();
                queue.push(Waiting { write, reply }).unwrap();
            }
            let (reply, _) = oneshot::channel();
            let refused = queue.push(Waiting { write, reply });
            assert!(matches!(refused, Err(PortError::Unavailable(_))), "{write:?}");
            // There is room again when they are taken.
            while queue.next_group().is_some() {}
        }
    }
}
