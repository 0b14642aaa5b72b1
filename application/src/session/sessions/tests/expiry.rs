//! Token expiry and refresh.

use super::*;

#[tokio::test]
async fn session_is_warned_once_and_ends_with_its_token() {
    let node = node();
    let device = FakeDevice::new();
    let session = node.join(claims("ada", 100_000), device.clone());
    connect(&node.sessions, &session, None).await;

    // The warning is due one minute before the expiry.
    node.clock.set(39_999);
    node.sessions.close_expired();
    assert_eq!(device.received().len(), 2, "only the sync and the count");
    node.clock.set(40_000);
    for _ in 0..2 {
        node.sessions.close_expired();
        assert!(matches!(device.received()[2], Push::Expiring { .. }));
        assert_eq!(device.received().len(), 3, "the device is warned once");
    }
    let expiry = Some(at(100_000));
    assert_eq!(session.replace_next_check(expiry), expiry, "no check before the expiry");
    assert!(node.sessions.authorize(&session, Action::ReadInbox).is_ok());

    node.clock.set(100_000);
    assert!(matches!(
        node.sessions.authorize(&session, Action::ReadInbox),
        Err(AuthError::TokenExpired)
    ));
    node.sessions.close_expired();
    assert!(matches!(device.received()[3], Push::Exception { code: "token_expired", .. }));
    assert_eq!(device.close_reason(), Some(CloseReason::TokenExpired));
    assert_eq!(node.sessions.count(), 0);
}

#[tokio::test]
async fn session_with_a_short_lived_token_is_warned_halfway_to_its_expiry() {
    let node = node();
    let device = FakeDevice::new();
    let session = node.join(claims("ada", 8_000), device.clone());
    connect(&node.sessions, &session, None).await;
    for (at, received) in [(3_999, 2), (4_000, 3), (7_999, 3)] {
        node.clock.set(at);
        node.sessions.close_expired();
        assert_eq!(device.received().len(), received, "at {at}");
    }
    assert!(matches!(device.received()[2], Push::Expiring { .. }));
    node.clock.set(8_000);
    node.sessions.close_expired();
    assert_eq!(device.close_reason(), Some(CloseReason::TokenExpired));
}

#[tokio::test]
async fn session_continues_with_a_newer_token_of_the_same_user() {
    let node = node();
    let device = FakeDevice::new();
    let session = node.join(claims("ada", 1_000), device.clone());
    connect(&node.sessions, &session, None).await;

    let other_users_token = BearerToken::parse("bob:9000").unwrap();
    let refreshed = node.sessions.refresh(&session, other_users_token).await;
    assert!(matches!(refreshed, Err(AuthError::OtherUser)));
    node.sessions.refresh(&session, BearerToken::parse("ada:500000").unwrap()).await.unwrap();

    node.clock.set(1_000);
    node.sessions.close_expired();
    assert_eq!(device.close_reason(), None);
    node.clock.set(500_000);
    node.sessions.close_expired();
    assert_eq!(device.close_reason(), Some(CloseReason::TokenExpired));
}

#[tokio::test(start_paused = true)]
async fn expired_session_is_closed_within_a_tenth_of_a_second() {
    let node = node();
    let device = FakeDevice::new();
    node.join(claims("ada", 1_000), device.clone());
    let stop = CancellationToken::new();
    let check = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(device.close_reason(), None);
        node.clock.set(1_000);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(device.close_reason(), Some(CloseReason::TokenExpired));
        stop.cancel();
    };
    tokio::join!(node.sessions.run_expiry(stop.clone()), check);
}
