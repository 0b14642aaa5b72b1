use belfry_application::trace::current;
use parking_lot::Mutex;

use super::super::invalid_message::InvalidMessage;
use super::super::message::Envelope;
use super::super::message_mapping::MessageMapping;
use super::*;

type Results = Vec<Result<(), HandlerError>>;

/// A handler that runs commands with a function. Command `n` has the ordering key `n % KEYS`.
struct FunctionHandler<const KEYS: u32, F>(F);

impl<const KEYS: u32, F> MessageHandler for FunctionHandler<KEYS, F>
where
    F: Fn(Vec<u32>) -> Results + Send + Sync,
{
    type Command = u32;
    type OrderingKey = u32;

    fn ordering_key(command: &u32) -> u32 {
        command % KEYS
    }

    fn decode(&self, _: &Envelope<'_>, _: &MessageMapping) -> Result<u32, InvalidMessage> {
        Err(InvalidMessage::NoData)
    }

    async fn run(&self, commands: Vec<u32>) -> Results {
        (self.0)(commands)
    }
}

fn with_keys<const KEYS: u32>(
    run: impl Fn(Vec<u32>) -> Results + Send + Sync,
) -> impl MessageHandler<Command = u32> {
    FunctionHandler::<KEYS, _>(run)
}

/// A handler in which each command has its own ordering key.
fn with_distinct_keys(
    run: impl Fn(Vec<u32>) -> Results + Send + Sync,
) -> impl MessageHandler<Command = u32> {
    with_keys::<{ u32::MAX }>(run)
}

/// A store that can be down, and in which some messages never succeed.
#[derive(Default)]
struct Store {
    down: Mutex<bool>,
    /// Messages that fail every batch that contains them.
    poison: Vec<u32>,
    /// Messages whose result is `Rejected`.
    rejected: Vec<u32>,
    /// Messages whose result is `TooEarly`.
    early: Vec<u32>,
    /// The messages of each batch.
    calls: Mutex<Vec<Vec<u32>>>,
    /// The trace of each batch.
    traces: Mutex<Vec<Option<TraceParent>>>,
}

impl Store {
    fn handler(&self) -> impl MessageHandler<Command = u32> {
        with_distinct_keys(|commands| self.run(&commands))
    }

    /// Fails the whole batch if it contains a poison message, like a transaction.
    fn run(&self, commands: &[u32]) -> Results {
        self.calls.lock().push(commands.to_vec());
        self.traces.lock().push(current());
        let fails = *self.down.lock() || commands.iter().any(|one| self.poison.contains(one));
        let result = |one: &u32| {
            if fails {
                Err(HandlerError::Failed("down".into()))
            } else if self.rejected.contains(one) {
                Err(HandlerError::Rejected("no".into()))
            } else if self.early.contains(one) {
                Err(HandlerError::TooEarly("does not exist".into()))
            } else {
                Ok(())
            }
        };
        commands.iter().map(result).collect()
    }
}

fn executor_with(messages: impl IntoIterator<Item = u32>) -> BatchExecutor<u32, u32> {
    let mut executor = BatchExecutor::default();
    for message in messages {
        executor.push(Pending::new(message, message, None));
    }
    executor
}

impl BatchRun<u32> {
    fn messages(&self, matches: impl Fn(&Result<(), HandlerError>) -> bool) -> Vec<u32> {
        self.finished
            .iter()
            .filter(|(_, result)| matches(result))
            .map(|(message, _)| *message)
            .collect()
    }

    fn done(&self) -> Vec<u32> {
        self.messages(Result::is_ok)
    }

    fn rejected(&self) -> Vec<u32> {
        self.messages(|result| matches!(result, Err(HandlerError::Rejected(_))))
    }

    fn early(&self) -> Vec<u32> {
        self.messages(|result| matches!(result, Err(HandlerError::TooEarly(_))))
    }

    fn failed(&self) -> Vec<u32> {
        let failed = |result: &_| {
            matches!(result, Err(HandlerError::Failed(_) | HandlerError::Unavailable(_)))
        };
        self.messages(failed)
    }
}

#[tokio::test]
async fn all_messages_run_in_one_batch() {
    let store = Store { rejected: vec![2], ..Store::default() };
    let mut executor = executor_with(0..5);
    let run = executor.run(&store.handler()).await;
    assert_eq!(run.done(), [0, 1, 3, 4]);
    assert_eq!(run.rejected(), [2]);
    assert!(executor.is_empty() && run.blocked_by.is_none());
    assert_eq!(store.calls.lock().len(), 1);
}

#[tokio::test]
async fn early_messages_finish_at_once_and_count_as_progress() {
    let store = Store { early: vec![0, 1], ..Store::default() };
    let mut executor = executor_with(0..2);
    let run = executor.run(&store.handler()).await;
    assert_eq!(run.early(), [0, 1]);
    assert!(run.made_progress() && run.done().is_empty() && run.failed().is_empty());
    assert!(executor.is_empty() && run.blocked_by.is_none());
    assert_eq!(store.calls.lock().len(), 1, "early messages are not run again one by one");
}

#[tokio::test]
async fn store_that_is_down_gets_one_probe_per_run_and_no_message_is_lost() {
    let store = Store { down: Mutex::new(true), ..Store::default() };
    let mut executor = executor_with(0..200);
    for _ in 0..300 {
        let run = executor.run(&store.handler()).await;
        assert!(!run.made_progress() && run.failed().is_empty() && run.rejected().is_empty());
        assert!(matches!(run.blocked_by, Some(HandlerError::Failed(_))));
    }
    assert_eq!(store.calls.lock().len(), 300);
    // The first run tries all messages in one batch. Every later run sends a probe.
    assert!(store.calls.lock()[1..].iter().all(|commands| commands.len() == 1));

    *store.down.lock() = false;
    let mut done = executor.run(&store.handler()).await.done();
    done.sort_unstable();
    assert_eq!(done, (0..200).collect::<Vec<_>>());
    assert_eq!(store.calls.lock().len(), 302, "one probe, then all others in one batch");
}

#[tokio::test]
async fn bad_messages_are_isolated_and_all_others_succeed() {
    for poison in [vec![0], vec![99], vec![42], vec![0, 1, 2], vec![0, 50, 99], vec![98, 99]] {
        let store = Store { poison: poison.clone(), ..Store::default() };
        let mut executor = executor_with(0..100);
        let (mut done, mut failed) = (vec![], vec![]);
        let mut runs = 0;
        while !executor.is_empty() {
            // One new message arrives before each run.
            executor.push(Pending::new(1_000 + runs, 1_000 + runs, None));
            runs += 1;
            let run = executor.run(&store.handler()).await;
            done.extend(run.done());
            failed.extend(run.failed());
            assert!(runs < 100, "{poison:?}: still {} pending", executor.len());
        }
        failed.sort_unstable();
        assert_eq!(failed, poison);
        assert_eq!(done.len() + failed.len(), 100 + runs as usize);
        assert!(runs < 20, "{poison:?}: {runs} runs");
        assert!(store.calls.lock().len() < 200, "{poison:?}: {} calls", store.calls.lock().len());
    }
}

#[tokio::test]
async fn single_failing_message_stays_pending_until_others_succeed() {
    let store = Store { poison: vec![7], ..Store::default() };
    let mut executor = executor_with([7]);
    for _ in 0..50 {
        assert!(executor.run(&store.handler()).await.failed().is_empty());
    }
    let mut failed = vec![];
    let mut others = 100..106;
    while failed.is_empty() {
        let other = others.next().expect("six others suffice");
        executor.push(Pending::new(other, other, None));
        failed.extend(executor.run(&store.handler()).await.failed());
    }
    assert_eq!(failed, [7]);
}

/// A store that fails at random: it is down for a whole batch, or goes down in the middle of one.
struct FlakyStore {
    random: Mutex<u64>,
    done: Mutex<Vec<u32>>,
}

impl FlakyStore {
    /// A pseudorandom `true`, on average once in `calls` calls.
    fn once_in(&self, calls: u64) -> bool {
        let mut random = self.random.lock();
        // A linear congruential generator with Knuth's constants.
        *random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*random >> 33).is_multiple_of(calls)
    }

    fn run(&self, commands: Vec<u32>) -> Results {
        let mut down = self.once_in(2);
        let results = commands.into_iter().map(|command| {
            down |= self.once_in(20);
            if down {
                return Err(HandlerError::Failed("down".into()));
            }
            self.done.lock().push(command);
            Ok(())
        });
        results.collect()
    }
}

#[tokio::test]
async fn messages_of_one_key_succeed_in_order_despite_random_failures() {
    for seed in 0..200 {
        let store = FlakyStore { random: Mutex::new(seed), done: Mutex::default() };
        let handler = with_keys::<5>(|commands| store.run(commands));
        let mut executor = executor_with(0..40);
        let mut next = 40;
        let mut failed = Vec::new();
        while !executor.is_empty() {
            failed.extend(executor.run(&handler).await.failed());
            if next < 80 {
                executor.push(Pending::new(next, next, None));
                next += 1;
            }
        }
        let done = store.done.lock();
        assert_eq!(done.len() + failed.len(), 80);
        for key in 0..5 {
            let done_of_key: Vec<_> = done.iter().filter(|command| *command % 5 == key).collect();
            assert!(done_of_key.is_sorted(), "seed {seed}: {done_of_key:?}");
        }
    }
}

/// For example, when the disk is full, only commands that write fail.
#[tokio::test]
async fn messages_that_fail_in_a_partial_outage_stay_pending() {
    let disk_full = Mutex::new(true);
    let handler = with_distinct_keys(|commands| {
        let disk_full = *disk_full.lock();
        let result = |command| {
            if disk_full && command < 10 {
                return Err(HandlerError::Unavailable("the disk is full".into()));
            }
            Ok(())
        };
        commands.into_iter().map(result).collect()
    });
    let mut executor = executor_with(0..20);
    for other in 100..200 {
        executor.push(Pending::new(other, other, None));
        let run = executor.run(&handler).await;
        assert!(run.made_progress() && run.failed().is_empty());
    }
    *disk_full.lock() = false;
    assert_eq!(executor.run(&handler).await.done(), (0..10).collect::<Vec<_>>());
}

#[tokio::test]
async fn bad_message_does_not_block_its_key_forever() {
    let handler = with_keys::<1>(|commands| {
        let bad = commands.contains(&0);
        let result = |_| if bad { Err(HandlerError::Failed("bad".into())) } else { Ok(()) };
        commands.into_iter().map(result).collect()
    });
    let mut executor = executor_with(0..3);
    let mut done = Vec::new();
    // After `MAX_HEAD_PROBES` probes of the bad message, the messages behind it are probed too.
    for _ in 0..200 {
        done.extend(executor.run(&handler).await.done());
    }
    assert_eq!(done, [1, 2]);
}

#[tokio::test]
async fn message_without_a_result_stays_pending() {
    let handler = with_distinct_keys(|_| vec![Ok(())]);
    let mut executor = executor_with(0..3);
    assert_eq!(executor.run(&handler).await.done(), [0]);
    assert_eq!(executor.len(), 2);
}

#[tokio::test]
async fn messages_stay_pending_when_the_store_goes_down_in_the_middle_of_a_run() {
    let successes_left = Mutex::new(3);
    let handler = with_distinct_keys(|commands| {
        let mut successes_left = successes_left.lock();
        let result = |_| {
            if *successes_left == 0 {
                return Err(HandlerError::Failed("down".into()));
            }
            *successes_left -= 1;
            Ok(())
        };
        commands.into_iter().map(result).collect()
    });
    let mut executor = executor_with(0..10);
    let run = executor.run(&handler).await;
    assert_eq!((run.done().len(), run.failed().len(), executor.len()), (3, 0, 7));
    for _ in 0..20 {
        assert!(executor.run(&handler).await.failed().is_empty());
    }
    *successes_left.lock() = 100;
    while !executor.is_empty() {
        assert!(executor.run(&handler).await.failed().is_empty());
    }
}

#[tokio::test]
async fn batch_has_a_trace_only_if_all_its_messages_share_it() {
    let parent = |digit: &str| {
        let raw = format!("00-{}-00f067aa0ba902b7-01", digit.repeat(32));
        Some(TraceParent::parse(&raw).unwrap())
    };
    let (one, other) = (parent("1"), parent("2"));
    for (traces, expected) in [
        (vec![one.clone()], one.clone()),
        (vec![one.clone(), one.clone()], one.clone()),
        (vec![one.clone(), other], None),
        (vec![one, None], None),
        (vec![None], None),
    ] {
        let store = Store::default();
        let mut executor = BatchExecutor::default();
        for trace in traces {
            executor.push(Pending::new(0, 0, trace));
        }
        executor.run(&store.handler()).await;
        assert_eq!(*store.traces.lock(), [expected]);
    }
}
