//! Delivering batches to the devices of a room.

use super::*;

#[tokio::test]
async fn only_the_users_own_devices_receive_a_batch() {
    let node = node();
    let mut devices = Vec::new();
    for name in ["ada", "ada", "bob"] {
        let device = FakeDevice::new();
        let session = node.join(claims(name, 10_000), device.clone());
        connect(&node.sessions, &session, None).await;
        devices.push(device);
    }
    let batch = node.store_notification("ada", "n1").await;
    assert_eq!(node.sessions.deliver(&Node::room("ada"), &batch), 2);
    assert_eq!(devices[0].received_ids(), ["n1"]);
    assert_eq!(devices[1].received_ids(), ["n1"]);
    assert_eq!(devices[2].received_ids(), [""; 0]);
}

/// Accepts and discards every frame. Panics if it is closed.
struct DiscardingDevice;

impl Device for DiscardingDevice {
    type Frame = String;

    fn frame(push: &Push) -> String {
        format!("{push:?}")
    }

    fn send(&self, _: &String) -> Result<(), SendError> {
        Ok(())
    }

    fn queued(&self) -> usize {
        0
    }

    fn close(&self, why: CloseReason) {
        panic!("closed: {}", why.as_str());
    }
}

#[tokio::test]
async fn batch_is_encoded_once_for_all_devices_in_the_room() {
    let mut allocations = Vec::new();
    for device_count in [1, 2, 100] {
        let Node { store, clock, .. } = node();
        let sessions: Sessions<DiscardingDevice> = new_sessions(store, &clock);
        for name in ["ada", "bob"] {
            for _ in 0..device_count {
                let admission = sessions.admit(claims(name, 10_000)).unwrap();
                let session = sessions.join(admission, DiscardingDevice);
                connect(&sessions, &session, None).await;
            }
        }
        // `sessions` owns this node's store, so another node creates the batch.
        let batch = node().store_notification("ada", "n1").await;
        // Encoding allocates; sending to a `DiscardingDevice` does not.
        let allocated = allocation_counter::measure(|| {
            assert_eq!(sessions.deliver(&Node::room("ada"), &batch), device_count);
        });
        allocations.push(allocated.count_total);
    }
    assert!(allocations[0] > 0);
    // The same number for 1, 2 and 100 devices.
    assert_eq!(allocations, [allocations[0]; 3]);
}

#[tokio::test]
async fn slow_consumer_is_disconnected_and_others_receive_the_batch() {
    let node = node();
    let (slow, quick) = (FakeDevice::with_queue_of(2), FakeDevice::new());
    for device in [&slow, &quick] {
        let session = node.join(claims("ada", 10_000), device.clone());
        connect(&node.sessions, &session, None).await;
    }
    let batch = node.store_notification("ada", "n1").await;
    assert_eq!(node.sessions.deliver(&Node::room("ada"), &batch), 1);
    assert_eq!(slow.close_reason(), Some(CloseReason::TooSlow));
    assert_eq!(quick.received_ids(), ["n1"]);
}

#[tokio::test]
async fn session_is_dropped_after_leave() {
    let node = node();
    let session = node.join(claims("ada", 10_000), FakeDevice::new());
    let weak = Arc::downgrade(&session);
    node.sessions.leave(&session);
    // A second call has no further effect.
    node.sessions.leave(&session);
    assert_eq!(node.sessions.count(), 0);
    assert_eq!(Arc::weak_count(&session), 1, "the expiry schedule has no weak reference");
    drop(session);
    assert_eq!(weak.strong_count(), 0, "no room has a strong reference");
}

#[tokio::test]
async fn session_that_has_left_is_not_disconnected() {
    let node = node();
    let (left, other) = (FakeDevice::new(), FakeDevice::new());
    let session = node.join(claims("ada", 10_000), left.clone());
    node.join(claims("ada", 10_000), other.clone());
    node.sessions.leave(&session);
    node.sessions.disconnect(&session, CloseReason::TokenExpired, &AuthError::TokenExpired);
    assert_eq!((left.close_reason(), left.received()), (None, vec![]));
    assert_eq!((other.close_reason(), node.sessions.count()), (None, 1));
}
