//! Token expiry and refresh.

use super::*;

#[tokio::test]
async fn session_is_warned_once_and_ends_with_its_token() {
    let node = node();
    let device = FakeDevice::new();
    let session = node.join(claims("ada", 100_000), device.clone());
    connect(&node.sessions, &session, None).await;

    node.clock.set(39_999);
    node.sessions.close_expired();
    assert_eq!(device.received().len(), 1, "only the sync");
    for _ in 0..2 {
        node.clock.set(40_000);
        node.sessions.close_expired();
        assert!(matches!(device.received()[1], Push::Expiring { .. }));
        assert_eq!(device.received().len(), 2, "warned once");
    }
    assert!(node.sessions.authorize(&session, Action::ReadInbox).is_ok());

    node.clock.set(100_000);
    assert!(matches!(
        node.sessions.authorize(&session, Action::ReadInbox),
        Err(AuthError::TokenExpired)
    ));
    node.sessions.close_expired();
    assert!(matches!(device.received()[2], Push::Exception { code: "token_expired", .. }));
    assert_eq!(device.close_reason(), Some(CloseReason::TokenExpired));
    assert_eq!(node.sessions.count(), 0);
}

#[tokio::test]
async fn short_lived_token_is_warned_of_halfway() {
    let node = node();
    let device = FakeDevice::new();
    let session = node.join(claims("ada", 8_000), device.clone());
    connect(&node.sessions, &session, None).await;
    for (at, received) in [(3_999, 1), (4_000, 2), (7_999, 2)] {
        node.clock.set(at);
        node.sessions.close_expired();
        assert_eq!(device.received().len(), received, "at {at}");
    }
    assert!(matches!(device.received()[1], Push::Expiring { .. }));
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

    let other = node.sessions.refresh(&session, BearerToken::parse("bob:9000").unwrap()).await;
    assert!(matches!(other, Err(AuthError::OtherUser)));
    node.sessions.refresh(&session, BearerToken::parse("ada:500000").unwrap()).await.unwrap();

    node.clock.set(1_000);
    node.sessions.close_expired();
    assert_eq!(device.close_reason(), None);
    node.clock.set(500_000);
    node.sessions.close_expired();
    assert_eq!(device.close_reason(), Some(CloseReason::TokenExpired));
}
