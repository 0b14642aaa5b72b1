//! The devices of an erased user start over, and receive later notifications.

use super::*;

/// The pushes from `start` on, in words: `sync 5 recovered`, `count 1 at 7`, `n1`.
fn received_from(device: &FakeDevice, start: usize) -> Vec<String> {
    let words = |push: &Push| match push {
        Push::Sync(sync) => {
            assert_eq!(sync.epoch, epoch("e1"));
            let outcome = if sync.recovered { "recovered" } else { "reload" };
            format!("sync {} {outcome}", sync.revision)
        }
        Push::UnreadCount { count, revision } => format!("count {} at {revision}", count.get()),
        Push::New(new) => new.id.to_string(),
        other => panic!("{other:?}"),
    };
    device.received()[start..].iter().map(words).collect()
}

#[tokio::test]
async fn connected_device_starts_over_and_receives_later_notifications() {
    let node = node();
    node.store_notification("ada", "n1").await;
    let device = FakeDevice::new();
    let session = node.join(claims("ada", 10_000), device.clone());
    connect(&node.sessions, &session, None).await;
    // This event is erased before it is published.
    node.store_notification("ada", "n2").await;
    let start = device.received().len();

    let erased = node.erase("ada").await;
    let later = node.store_notification("ada", "n1").await;
    // The second `erased` is a redelivery.
    for batch in [&erased, &erased, &later] {
        node.sessions.deliver(&Node::room("ada"), batch);
    }
    let expected = ["sync 3 reload", "count 0 at 3", "n1", "count 1 at 4"];
    assert_eq!(received_from(&device, start), expected);
}

#[tokio::test]
async fn earlier_erasure_of_a_longer_inbox_causes_no_gap() {
    let node = node();
    for n in 1..=9 {
        node.store_notification("bob", &format!("n{n}")).await;
    }
    node.erase("bob").await;
    node.store_notification("ada", "n1").await;
    let device = FakeDevice::new();
    let session = node.join(claims("ada", 10_000), device.clone());
    connect(&node.sessions, &session, None).await;
    let start = device.received().len();
    let erased = node.erase("ada").await;
    node.sessions.deliver(&Node::room("ada"), &erased);
    let later = node.store_notification("ada", "n1").await;
    node.sessions.deliver(&Node::room("ada"), &later);
    let revision = erased.revision.unwrap().get();
    let expected = [
        format!("sync {revision} reload"),
        format!("count 0 at {revision}"),
        "n1".to_owned(),
        format!("count 1 at {}", revision + 1),
    ];
    assert_eq!(received_from(&device, start), expected);
}

#[tokio::test]
async fn device_with_a_position_in_the_erased_inbox_is_not_recovered() {
    let node = node();
    for n in 1..=3 {
        node.store_notification("ada", &format!("n{n}")).await;
    }
    node.erase("ada").await;
    for n in 1..=3 {
        node.store_notification("ada", &format!("m{n}")).await;
    }
    for (position, expected) in
        [(1, "sync 7 reload"), (3, "sync 7 reload"), (7, "sync 7 recovered")]
    {
        let device = FakeDevice::new();
        let session = node.join(claims("ada", 10_000), device.clone());
        connect(&node.sessions, &session, since(position)).await;
        let expected = [expected, "count 3 at 7"];
        assert_eq!(received_from(&device, 0), expected, "since {position}");
    }
}

#[tokio::test]
async fn device_that_catches_up_during_the_erasure_starts_over() {
    let node = node();
    for n in 1..=3 {
        node.store_notification("ada", &format!("n{n}")).await;
    }
    let device = FakeDevice::new();
    let session = node.join(claims("ada", 10_000), device.clone());
    let plan = node.sessions.prepare(&session, since(1)).await.unwrap();
    let erased = node.erase("ada").await;
    node.sessions.deliver(&Node::room("ada"), &erased);
    node.sessions.start(&session, plan).await;
    let later = node.store_notification("ada", "n1").await;
    node.sessions.deliver(&Node::room("ada"), &later);
    // The plan contained a replay, but the history was erased before the replay read it.
    let expected = [
        "sync 3 recovered",
        "sync 3 reload",
        "count 3 at 3",
        "sync 4 reload",
        "count 0 at 4",
        "n1",
        "count 1 at 5",
    ];
    assert_eq!(received_from(&device, 0), expected);
}
