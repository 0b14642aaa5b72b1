use belfry_application::trace::current;
use parking_lot::Mutex;

use super::super::message::{Envelope, Unreadable};
use super::*;

type Answers = Vec<Result<(), Failure>>;

/// Messages as a function does them.
struct ByFunction<const LANES: u32, F>(F);

impl<const LANES: u32, F> Handling for ByFunction<LANES, F>
where
    F: Fn(Vec<u32>) -> Answers + Send + Sync,
{
    type Order = u32;
    type Lane = u32;

    fn lane(order: &u32) -> u32 {
        order % LANES
    }

    fn read(&self, _: &Envelope<'_>) -> Result<u32, Unreadable> {
        Err(Unreadable::NoData)
    }

    async fn run(&self, orders: Vec<u32>) -> Answers {
        (self.0)(orders)
    }
}

/// That many lanes, which messages are dealt out to in turn.
fn in_lanes<const LANES: u32>(
    run: impl Fn(Vec<u32>) -> Answers + Send + Sync,
) -> impl Handling<Order = u32> {
    ByFunction::<LANES, _>(run)
}

/// Each in a lane of its own.
fn each_alone(run: impl Fn(Vec<u32>) -> Answers + Send + Sync) -> impl Handling<Order = u32> {
    in_lanes::<{ u32::MAX }>(run)
}

/// A store that is up or down, and for which some messages never work.
#[derive(Default)]
struct Store {
    down: Mutex<bool>,
    poison: Vec<u32>,
    rejected: Vec<u32>,
    early: Vec<u32>,
    calls: Mutex<Vec<Vec<u32>>>,
    traces: Mutex<Vec<Option<TraceParent>>>,
}

impl Store {
    fn handling(&self) -> impl Handling<Order = u32> {
        each_alone(|orders| self.run(&orders))
    }

    /// As a store does with a transaction: one that does not work fails all.
    fn run(&self, orders: &[u32]) -> Answers {
        self.calls.lock().push(orders.to_vec());
        self.traces.lock().push(current());
        let fails = *self.down.lock() || orders.iter().any(|one| self.poison.contains(one));
        let answer = |one: &u32| match fails {
            true => Err(Failure::Failed("down".into())),
            false if self.rejected.contains(one) => Err(Failure::Rejected("no".into())),
            false if self.early.contains(one) => Err(Failure::TooEarly("not there".into())),
            false => Ok(()),
        };
        orders.iter().map(answer).collect()
    }
}

fn holding(messages: impl IntoIterator<Item = u32>) -> Sieve<u32, u32> {
    let mut sieve = Sieve::default();
    for message in messages {
        sieve.take(Held::new(message, message, None));
    }
    sieve
}

fn messages(of: &[(u32, Failure)]) -> Vec<u32> {
    of.iter().map(|(message, _)| *message).collect()
}

#[tokio::test]
async fn all_are_done_together() {
    let store = Store { rejected: vec![2], ..Store::default() };
    let mut sieve = holding(0..5);
    let round = sieve.round(&store.handling()).await;
    assert_eq!(round.done, [0, 1, 3, 4]);
    assert_eq!(messages(&round.refused), [2]);
    assert!(sieve.is_empty() && round.held_by.is_none());
    assert_eq!(store.calls.lock().len(), 1);
}

#[tokio::test]
async fn what_comes_too_early_leaves_at_once_and_says_that_the_store_works() {
    let store = Store { early: vec![0, 1], ..Store::default() };
    let mut sieve = holding(0..2);
    let round = sieve.round(&store.handling()).await;
    assert_eq!(messages(&round.early), [0, 1]);
    assert!(round.works && round.done.is_empty() && round.failed.is_empty());
    assert!(sieve.is_empty() && round.held_by.is_none());
    assert_eq!(store.calls.lock().len(), 1, "it is not tried alone first");
}

#[tokio::test]
async fn a_store_that_is_down_is_asked_once_a_round_and_keeps_everything() {
    let store = Store { down: Mutex::new(true), ..Store::default() };
    let mut sieve = holding(0..200);
    for _ in 0..300 {
        let round = sieve.round(&store.handling()).await;
        assert!(!round.works && round.failed.is_empty() && round.refused.is_empty());
        assert!(matches!(round.held_by, Some(Failure::Failed(_))));
    }
    assert_eq!(store.calls.lock().len(), 300);
    assert!(store.calls.lock()[1..].iter().all(|orders| orders.len() == 1));

    *store.down.lock() = false;
    let mut done = sieve.round(&store.handling()).await.done;
    done.sort_unstable();
    assert_eq!(done, (0..200).collect::<Vec<_>>());
    assert_eq!(store.calls.lock().len(), 302, "one knock, then all others together");
}

#[tokio::test]
async fn those_that_never_work_are_found_and_cost_the_others_nothing() {
    for poison in [vec![0], vec![99], vec![42], vec![0, 1, 2], vec![0, 50, 99], vec![98, 99]] {
        let store = Store { poison: poison.clone(), ..Store::default() };
        let mut sieve = holding(0..100);
        let (mut done, mut failed) = (vec![], vec![]);
        let mut rounds = 0;
        while !sieve.is_empty() {
            // Others go on coming.
            sieve.take(Held::new(1_000 + rounds, 1_000 + rounds, None));
            rounds += 1;
            let round = sieve.round(&store.handling()).await;
            done.extend(round.done);
            failed.extend(messages(&round.failed));
            assert!(rounds < 100, "{poison:?}: still {} held", sieve.len());
        }
        failed.sort_unstable();
        assert_eq!(failed, poison);
        assert_eq!(done.len() + failed.len(), 100 + rounds as usize);
        assert!(rounds < 20, "{poison:?}: {rounds} rounds");
        assert!(store.calls.lock().len() < 200, "{poison:?}: {} calls", store.calls.lock().len());
    }
}

#[tokio::test]
async fn one_that_fails_while_nobody_else_is_there_waits_for_proof() {
    let store = Store { poison: vec![7], ..Store::default() };
    let mut sieve = holding([7]);
    for _ in 0..50 {
        assert!(sieve.round(&store.handling()).await.failed.is_empty());
    }
    let mut failed = vec![];
    let mut others = 100..106;
    while failed.is_empty() {
        let other = others.next().expect("a few others are proof enough");
        sieve.take(Held::new(other, other, None));
        failed.extend(messages(&sieve.round(&store.handling()).await.failed));
    }
    assert_eq!(failed, [7]);
}

/// A store that fails by chance, whole batches or from one message of a batch on.
struct Moody {
    dice: Mutex<u64>,
    done: Mutex<Vec<u32>>,
}

impl Moody {
    fn one_in(&self, chance: u64) -> bool {
        let mut dice = self.dice.lock();
        *dice =
            dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*dice >> 33).is_multiple_of(chance)
    }

    fn run(&self, orders: Vec<u32>) -> Answers {
        let mut down = self.one_in(2);
        let answers = orders.into_iter().map(|order| {
            down |= self.one_in(20);
            if down {
                return Err(Failure::Failed("down".into()));
            }
            self.done.lock().push(order);
            Ok(())
        });
        answers.collect()
    }
}

#[tokio::test]
async fn a_lane_keeps_its_order_whatever_fails() {
    for seed in 0..200 {
        let store = Moody { dice: Mutex::new(seed), done: Mutex::default() };
        let handling = in_lanes::<5>(|orders| store.run(orders));
        let mut sieve = holding(0..40);
        let mut next = 40;
        let mut failed = Vec::new();
        while !sieve.is_empty() {
            failed.extend(messages(&sieve.round(&handling).await.failed));
            if next < 80 {
                sieve.take(Held::new(next, next, None));
                next += 1;
            }
        }
        let done = store.done.lock();
        assert_eq!(done.len() + failed.len(), 80);
        for lane in 0..5 {
            let of_lane: Vec<_> = done.iter().filter(|order| *order % 5 == lane).collect();
            assert!(of_lane.is_sorted(), "seed {seed}: {of_lane:?}");
        }
    }
}

/// A disk that is full, say, stops those that write, and not those that find nothing to do.
#[tokio::test]
async fn an_outage_for_some_is_nobodys_fault() {
    let full = Mutex::new(true);
    let store = each_alone(|orders| {
        let full = *full.lock();
        let answer = |order| {
            if full && order < 10 {
                return Err(Failure::Unavailable("the disk is full".into()));
            }
            Ok(())
        };
        orders.into_iter().map(answer).collect()
    });
    let mut sieve = holding(0..20);
    for other in 100..200 {
        sieve.take(Held::new(other, other, None));
        let round = sieve.round(&store).await;
        assert!(round.works && round.failed.is_empty());
    }
    *full.lock() = false;
    assert_eq!(sieve.round(&store).await.done, (0..10).collect::<Vec<_>>());
}

#[tokio::test]
async fn one_bad_message_of_a_lane_does_not_hold_it_up_for_ever() {
    let store = in_lanes::<1>(|orders| {
        let bad = orders.contains(&0);
        let answer = |_| if bad { Err(Failure::Failed("bad".into())) } else { Ok(()) };
        orders.into_iter().map(answer).collect()
    });
    let mut sieve = holding(0..3);
    let mut done = Vec::new();
    for _ in 0..200 {
        done.extend(sieve.round(&store).await.done);
    }
    assert_eq!(done, [1, 2]);
}

#[tokio::test]
async fn what_gets_no_answer_is_not_done() {
    let taciturn = each_alone(|_| vec![Ok(())]);
    let mut sieve = holding(0..3);
    assert_eq!(sieve.round(&taciturn).await.done, [0]);
    assert_eq!(sieve.len(), 2);
}

#[tokio::test]
async fn a_store_that_goes_down_in_the_middle_condemns_nobody() {
    let left = Mutex::new(3);
    let store = each_alone(|orders| {
        let mut left = left.lock();
        let answer = |_| {
            if *left == 0 {
                return Err(Failure::Failed("down".into()));
            }
            *left -= 1;
            Ok(())
        };
        orders.into_iter().map(answer).collect()
    });
    let mut sieve = holding(0..10);
    let round = sieve.round(&store).await;
    assert_eq!((round.done.len(), round.failed.len(), sieve.len()), (3, 0, 7));
    for _ in 0..20 {
        assert!(sieve.round(&store).await.failed.is_empty());
    }
    *left.lock() = 100;
    while !sieve.is_empty() {
        assert!(sieve.round(&store).await.failed.is_empty());
    }
}

#[tokio::test]
async fn work_belongs_to_a_trace_that_all_of_it_belongs_to() {
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
        let mut sieve = Sieve::default();
        for trace in traces {
            sieve.take(Held::new(0, 0, trace));
        }
        sieve.round(&store.handling()).await;
        assert_eq!(*store.traces.lock(), [expected]);
    }
}
