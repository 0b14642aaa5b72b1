//! What breaks while events flow: whatever it is, everybody gets everything, once and in order.
//!
//! A [`Scene`] has nodes, people with two devices each, and a [`Producer`](producer::Producer) for each
//! of them, who tells, marks as read and deletes, most by messages and some by requests. Meanwhile
//! [faults](Fault) strike. Whatever a producer was told is safe stands in its [`Ledger`](ledger::Ledger),
//! and has then to be in the database and at each device: none lost, none twice, in its order, read
//! and deleted as it was, and with the count that the database's rows have.

mod fault;
mod ledger;
mod observed;
mod producer;
mod scene;
mod soak;
mod strike;

use std::time::Duration;

use tokio::time::Instant;

use self::fault::Fault;
use self::scene::{Pace, Scene};

/// How many are told to each of three people at least where a test says nothing else.
const SOME: usize = 80;

/// The same for a thousand in all.
const MANY: usize = 334;

const HALF_A_SECOND: Duration = Duration::from_millis(500);

#[tokio::test]
async fn killed_and_started_again_on_its_port() {
    proves(1, SOME, &[&[Fault::KillNodes(Duration::from_millis(300))]]).await;
}

#[tokio::test]
async fn the_only_node_is_killed_and_back_after_two_seconds() {
    proves(1, MANY, &[&[Fault::KillNodes(Duration::from_secs(2))]]).await;
}

#[tokio::test]
async fn devices_are_away_for_half_a_second() {
    proves(1, MANY, &[&[Fault::CutDevices(HALF_A_SECOND)], &[Fault::CutDevices(HALF_A_SECOND)]])
        .await;
}

#[tokio::test]
async fn devices_are_cut_off_and_frozen_from_a_fifth_of_a_second_to_half_a_minute() {
    let mut scene = Scene::of(2, fault::LENGTHS.len(), Pace::Slow, &[]).await;
    shows(&mut scene, 100, &[&[Fault::BreakEachDevice]]).await;
}

#[tokio::test]
async fn devices_lose_their_connections_again_and_again() {
    proves(2, SOME, &[&[Fault::DropDevices]]).await;
}

#[tokio::test]
async fn the_node_that_relays_is_killed_and_another_takes_over() {
    proves(2, SOME, &[&[Fault::KillLead]]).await;
}

#[tokio::test]
async fn one_of_two_nodes_is_killed_with_devices_on_both() {
    proves(2, SOME, &[&[Fault::KillFollower]]).await;
}

#[tokio::test]
async fn connections_to_the_broker_are_cut_and_then_it_is_out_of_reach() {
    proves(1, SOME, &[&[Fault::CutBroker], &[Fault::HideBroker]]).await;
}

#[tokio::test]
async fn the_broker_is_killed() {
    proves(1, SOME, &[&[Fault::KillBroker]]).await;
}

#[tokio::test]
async fn the_broker_is_stopped_for_ten_seconds() {
    proves(1, SOME, &[&[Fault::StopBroker]]).await;
}

#[tokio::test]
async fn the_broker_closes_all_connections_and_then_blocks_who_publishes() {
    proves(1, SOME, &[&[Fault::CloseBrokerConnections], &[Fault::BlockPublishers]]).await;
}

#[tokio::test]
async fn queues_of_nodes_are_deleted_under_way() {
    proves(2, SOME, &[&[Fault::DeleteNodeQueues]]).await;
}

#[tokio::test]
async fn the_ingest_queue_is_deleted_under_way() {
    proves(1, SOME, &[&[Fault::DeleteIngestQueue]]).await;
}

#[tokio::test]
async fn the_database_ends_connections_again_and_again() {
    proves(1, SOME, &[&[Fault::TerminateBackends]]).await;
}

#[tokio::test]
async fn the_database_is_killed() {
    proves(1, SOME, &[&[Fault::KillDatabase]]).await;
}

#[tokio::test]
async fn the_database_says_that_its_disk_is_full() {
    proves(1, SOME, &[&[Fault::FillDisk]]).await;
}

#[tokio::test]
async fn a_node_is_killed_while_the_broker_is_out_of_reach() {
    proves(1, SOME, &[&[Fault::KillNodes(HALF_A_SECOND), Fault::HideBroker]]).await;
}

#[tokio::test]
async fn the_database_ends_connections_while_devices_are_cut_off() {
    let devices = Fault::CutDevices(Duration::from_secs(1));
    proves(2, SOME, &[&[Fault::TerminateBackends, devices]]).await;
}

#[tokio::test]
async fn one_of_two_nodes_is_killed_while_queues_of_nodes_are_deleted() {
    proves(2, SOME, &[&[Fault::KillFollower, Fault::DeleteNodeQueues]]).await;
}

/// Has events flow to three people while faults strike, one group after the other, those of a group at
/// the same time, and checks what everybody got.
async fn proves(nodes: usize, least: usize, faults: &[&[Fault]]) {
    let mut scene = Scene::of(nodes, 3, Pace::Fast, &faults.concat()).await;
    shows(&mut scene, least, faults).await;
}

async fn shows(scene: &mut Scene, least: usize, faults: &[&[Fault]]) {
    let started = Instant::now();
    scene.endure(least, faults).await;
    let endured = started.elapsed().as_secs_f64();
    let summary = scene.check().await;
    let in_all = started.elapsed().as_secs_f64();
    println!("{faults:?}: {summary}, told within {endured:.1} s, all there after {in_all:.1} s");
}
