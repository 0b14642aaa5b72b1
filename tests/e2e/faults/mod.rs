//! Faults while events flow: every device receives every event, once and in order.
//!
//! A [`FaultTest`] has nodes and users with two devices each. For each user a
//! [`Producer`](producer::Producer) creates notifications, marks them as read and deletes them, by messages
//! or by requests. Meanwhile [faults](Fault) are injected, and each of them must have its effect. A
//! [`Ledger`](ledger::Ledger) records the operations that were confirmed to the producer.
//!
//! At the end the database and each device must have exactly these notifications: none lost, none twice, in
//! order, read and deleted as recorded. The count must match the unread rows.

mod fault;
mod fault_test;
mod injector;
mod ledger;
mod observed;
mod producer;
mod soak;

use std::time::Duration;

use tokio::time::Instant;

use self::fault::Fault;
use self::fault_test::{FaultTest, Pace};

/// The minimum number of notifications for each of three users in most tests.
const SOME: usize = 80;

/// The same for about a thousand notifications in total.
const MANY: usize = 334;

const HALF_A_SECOND: Duration = Duration::from_millis(500);

#[tokio::test]
async fn node_is_killed_and_restarted_on_its_port() {
    assert_nothing_is_lost(1, SOME, &[&[Fault::KillNodes(Duration::from_millis(300))]]).await;
}

#[tokio::test]
async fn only_node_is_killed_and_restarted_after_two_seconds() {
    assert_nothing_is_lost(1, MANY, &[&[Fault::KillNodes(Duration::from_secs(2))]]).await;
}

#[tokio::test]
async fn devices_are_cut_off_for_half_a_second() {
    assert_nothing_is_lost(
        1,
        MANY,
        &[&[Fault::CutDevices(HALF_A_SECOND)], &[Fault::CutDevices(HALF_A_SECOND)]],
    )
    .await;
}

#[tokio::test]
async fn devices_are_cut_off_and_frozen_for_200_ms_to_30_s() {
    let mut test = FaultTest::new(2, fault::LENGTHS.len(), Pace::Slow, &[]).await;
    run(&mut test, 100, &[&[Fault::BreakEachDevice]]).await;
}

#[tokio::test]
async fn devices_lose_their_connections_repeatedly() {
    assert_nothing_is_lost(2, SOME, &[&[Fault::DropDevices]]).await;
}

#[tokio::test]
async fn leader_is_killed_and_another_node_takes_over() {
    assert_nothing_is_lost(2, SOME, &[&[Fault::KillLeader]]).await;
}

#[tokio::test]
async fn follower_is_killed_with_devices_on_both_nodes() {
    assert_nothing_is_lost(2, SOME, &[&[Fault::KillFollower]]).await;
}

#[tokio::test]
async fn broker_connections_are_cut_and_then_the_broker_is_unreachable() {
    assert_nothing_is_lost(1, SOME, &[&[Fault::CutBroker], &[Fault::HideBroker]]).await;
}

#[tokio::test]
async fn broker_is_killed() {
    assert_nothing_is_lost(1, SOME, &[&[Fault::KillBroker]]).await;
}

#[tokio::test]
async fn broker_is_stopped_for_ten_seconds() {
    assert_nothing_is_lost(1, SOME, &[&[Fault::StopBroker]]).await;
}

#[tokio::test]
async fn broker_closes_all_connections_and_then_blocks_publishers() {
    assert_nothing_is_lost(1, SOME, &[&[Fault::CloseBrokerConnections], &[Fault::BlockPublishers]])
        .await;
}

#[tokio::test]
async fn node_queues_are_deleted() {
    assert_nothing_is_lost(2, SOME, &[&[Fault::DeleteNodeQueues]]).await;
}

#[tokio::test]
async fn ingest_queue_is_deleted() {
    assert_nothing_is_lost(1, SOME, &[&[Fault::DeleteIngestQueue]]).await;
}

#[tokio::test]
async fn database_terminates_connections_repeatedly() {
    assert_nothing_is_lost(1, SOME, &[&[Fault::TerminateBackends]]).await;
}

#[tokio::test]
async fn database_is_killed() {
    assert_nothing_is_lost(1, SOME, &[&[Fault::KillDatabase]]).await;
}

#[tokio::test]
async fn database_rejects_writes_as_with_a_full_disk() {
    assert_nothing_is_lost(1, SOME, &[&[Fault::FillDisk]]).await;
}

#[tokio::test]
async fn node_is_killed_while_the_broker_is_unreachable() {
    assert_nothing_is_lost(1, SOME, &[&[Fault::KillNodes(HALF_A_SECOND), Fault::HideBroker]]).await;
}

#[tokio::test]
async fn database_terminates_connections_while_devices_are_cut_off() {
    let devices = Fault::CutDevices(Duration::from_secs(1));
    assert_nothing_is_lost(2, SOME, &[&[Fault::TerminateBackends, devices]]).await;
}

#[tokio::test]
async fn follower_is_killed_while_node_queues_are_deleted() {
    assert_nothing_is_lost(2, SOME, &[&[Fault::KillFollower, Fault::DeleteNodeQueues]]).await;
}

/// Creates at least `min_created` notifications for each of three users, and injects one group of faults after
/// the other meanwhile, the faults of a group at the same time. Then checks that nothing is lost.
async fn assert_nothing_is_lost(nodes: usize, min_created: usize, faults: &[&[Fault]]) {
    let mut test = FaultTest::new(nodes, 3, Pace::Fast, &faults.concat()).await;
    run(&mut test, min_created, faults).await;
}

async fn run(test: &mut FaultTest, min_created: usize, faults: &[&[Fault]]) {
    let started = Instant::now();
    test.inject(min_created, faults).await;
    let injected = started.elapsed().as_secs_f64();
    let summary = test.check().await;
    let total = started.elapsed().as_secs_f64();
    println!(
        "{faults:?}: {summary}, accepted within {injected:.1} s, delivered after {total:.1} s"
    );
}
