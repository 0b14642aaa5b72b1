//! The scopes that sessions require.

use super::*;

fn sessions_with(access: Access) -> Sessions<FakeDevice> {
    let clock = Arc::new(ManualClock::at(0));
    let revoked = Arc::new(RevokedTokens::empty());
    Sessions::new(
        SignIn::new(Arc::new(FakeTokenVerifier), clock.clone(), revoked, access),
        CatchUp::new(Arc::new(InMemoryStore::new(epoch("e1"))), 100),
        Arc::new(UnlimitedWork),
        clock,
        SessionSettings::default(),
    )
}

#[tokio::test]
async fn token_without_the_configured_scope_is_rejected() {
    let token = || BearerToken::parse("ada:10000").unwrap();
    let assert_missing = |error: AuthError, name: &str| {
        assert!(matches!(&error, AuthError::ScopeMissing(scope) if **scope == *name), "{error:?}");
    };

    let read = sessions_with(Access { read: Some("inbox:read".into()), ..Access::default() });
    assert_missing(read.sign_in(token()).await.unwrap_err(), "inbox:read");

    let change = sessions_with(Access { change: Some("inbox:change".into()), ..Access::default() });
    let claims = change.sign_in(token()).await.unwrap();
    let session = join(&change, claims, FakeDevice::new());
    assert!(change.authorize(&session, Action::ReadInbox).is_ok());
    assert_missing(change.authorize(&session, Action::ChangeInbox).unwrap_err(), "inbox:change");
}
