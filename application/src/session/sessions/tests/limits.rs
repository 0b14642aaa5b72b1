//! The session limit per user.

use super::*;

fn limited(per_user: usize, on_excess: ExcessPolicy) -> Node {
    let mut node = node();
    node.sessions.settings.limit = Some(SessionLimit { per_user, on_excess });
    node
}

#[tokio::test]
async fn session_over_the_limit_evicts_the_oldest() {
    let node = limited(2, ExcessPolicy::EvictOldest);
    let bobs_device = FakeDevice::new();
    node.join(claims("bob", 10_000), bobs_device.clone());
    let devices = [(); 4].map(|()| FakeDevice::new());
    let sessions =
        devices.each_ref().map(|device| node.join(claims("ada", 10_000), device.clone()));
    let evicted = Some(CloseReason::TooManySessions);
    assert_eq!(devices.each_ref().map(FakeDevice::close_reason), [evicted, evicted, None, None]);
    assert!(!CloseReason::TooManySessions.should_reconnect());
    let [push] = &*devices[0].received() else { panic!("{:?}", devices[0].received()) };
    assert!(matches!(push, Push::Exception { code: TooManySessions::CODE, .. }));
    assert_eq!((node.sessions.count(), bobs_device.close_reason()), (3, None));

    // Nothing is left of the evicted sessions, neither in the room nor in the expiry schedule.
    node.sessions.leave(&sessions[0]);
    node.sessions.leave(&sessions[3]);
    let next = FakeDevice::new();
    node.join(claims("ada", 10_000), next.clone());
    assert_eq!((devices[2].close_reason(), next.close_reason()), (None, None));
    node.clock.set(10_000);
    node.sessions.close_expired();
    assert_eq!(devices[0].received().len(), 1);
}

#[tokio::test]
async fn admission_reserves_a_place_when_new_sessions_are_rejected() {
    let node = limited(2, ExcessPolicy::RejectNewest);
    let admit = |name: &str| node.sessions.admit(claims(name, 10_000));
    let first = node.join(claims("ada", 10_000), FakeDevice::new());
    let second = admit("ada").unwrap();
    assert_eq!(admit("ada").unwrap_err(), TooManySessions);
    assert!(admit("bob").is_ok());
    // Nothing is delivered to a reservation.
    let bobs_admission = admit("bob").unwrap();
    assert_eq!(
        node.sessions.deliver(&Node::room("bob"), &node.store_notification("bob", "n1").await),
        0
    );
    drop(bobs_admission);

    let device = FakeDevice::new();
    node.sessions.join(second, device.clone());
    assert_eq!(admit("ada").unwrap_err(), TooManySessions);
    // Leaving twice frees one place only.
    node.sessions.leave(&first);
    node.sessions.leave(&first);
    let third = admit("ada").unwrap();
    assert_eq!(admit("ada").unwrap_err(), TooManySessions);
    drop(third);
    drop(admit("ada").unwrap());
    assert_eq!((device.close_reason(), node.sessions.count()), (None, 1));
    assert_eq!(node.sessions.rooms.room_count(), 1, "an unused room is removed");
}

#[test]
fn session_limit_is_exact_under_concurrency() {
    const LIMIT: usize = 5;
    for policy in [ExcessPolicy::EvictOldest, ExcessPolicy::RejectNewest] {
        let node = limited(LIMIT, policy);
        let devices: Vec<_> = (0..8 * 50).map(|_| FakeDevice::new()).collect();
        std::thread::scope(|scope| {
            for devices in devices.chunks(50) {
                let node = &node;
                scope.spawn(move || {
                    for device in devices {
                        if let Ok(admission) = node.sessions.admit(claims("ada", 10_000)) {
                            node.sessions.join(admission, device.clone());
                        }
                        assert!(node.sessions.count() <= LIMIT);
                    }
                });
            }
        });
        assert_eq!(node.sessions.count(), LIMIT, "{policy:?}");
        let closed = devices.iter().filter(|device| device.close_reason().is_some()).count();
        let expected = if policy == ExcessPolicy::EvictOldest { devices.len() - LIMIT } else { 0 };
        assert_eq!(closed, expected, "{policy:?}");
    }
}
