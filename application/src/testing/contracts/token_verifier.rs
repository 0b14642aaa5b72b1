//! The contract of [`TokenVerifier`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use belfry_domain::Timestamp;
use futures_util::future::join_all;

use super::promises;
use crate::ports::{BearerToken, Claims, TokenError, TokenVerifier};
use crate::testing::samples::user;

/// The verifier under test, and an issuer that it trusts.
#[derive(Clone)]
pub struct Tokens {
    verifier: Arc<dyn TokenVerifier>,
    mint: Arc<Mint>,
    now: Timestamp,
}

/// Issues a token for a user and an expiry.
type Mint = dyn Fn(&str, Timestamp) -> String + Send + Sync;

impl Tokens {
    /// `mint` issues tokens that the verifier trusts. `now` is the time of the verifier's clock.
    pub fn new(
        verifier: Arc<dyn TokenVerifier>,
        mint: impl Fn(&str, Timestamp) -> String + Send + Sync + 'static,
        now: Timestamp,
    ) -> Self {
        Self { verifier, mint: Arc::new(mint), now }
    }

    fn in_an_hour(&self) -> Timestamp {
        self.now.plus(Duration::from_hours(1))
    }

    async fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        let token = BearerToken::parse(token).unwrap().expect("a token");
        self.verifier.verify(&token).await
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("now", &self.now).finish_non_exhaustive()
    }
}

promises! { Tokens:

/// The id is not changed: `Ada` and `ada` are two users.
async fn token_authenticates_the_user_it_names(tokens) {
    for name in ["ada", "Ada", "42", "auth0|5f7c8ec7", "tenant/7", "ада", "ü".repeat(255).as_str()] {
        let token = (tokens.mint)(name, tokens.in_an_hour());
        let claims = tokens.verify(&token).await.expect("a valid token");
        assert_eq!(claims.user, user(name));
    }
}

/// Leeway may extend the validity.
async fn token_is_valid_until_its_expiry(tokens) {
    let end = tokens.in_an_hour();
    let claims = tokens.verify(&(tokens.mint)("ada", end)).await.expect("a valid token");
    assert!(claims.expires_at >= end);
    assert!(claims.expires_at <= end.plus(Duration::from_mins(10)), "leeway is at most ten minutes");
}

/// A verifier may leave the check of the expiry to its caller.
async fn expired_token_is_reported_as_expired(tokens) {
    let long_ago = tokens.now.minus(Duration::from_hours(1));
    match tokens.verify(&(tokens.mint)("ada", long_ago)).await {
        Ok(claims) => assert!(claims.expires_at <= tokens.now),
        Err(error) => assert!(matches!(error, TokenError::Expired), "{error}"),
    }
}

async fn token_without_scope_has_no_scope(tokens) {
    let token = (tokens.mint)("ada", tokens.in_an_hour());
    let claims = tokens.verify(&token).await.expect("a valid token");
    assert!(!claims.scopes.contains(crate::ports::Scopes::WRITE));
}

async fn key_of_a_verified_token_is_accepted(tokens) {
    let token = (tokens.mint)("ada", tokens.in_an_hour());
    let claims = tokens.verify(&token).await.expect("a valid token");
    assert!(tokens.verifier.accepted_keys().contains(&claims.key));
}

async fn malformed_token_is_rejected_as_invalid(tokens) {
    for raw in ["x", "a.b.c", "...", "ada", "ü", &"x".repeat(BearerToken::MAX_BYTES)] {
        let result = tokens.verify(raw).await;
        assert!(matches!(result, Err(TokenError::Invalid(_))), "{raw:.20}: {result:?}");
    }
}

async fn repeated_verification_returns_the_same_claims(tokens) {
    let token = (tokens.mint)("ada", tokens.in_an_hour());
    let first = tokens.verify(&token).await.expect("a valid token");
    assert_eq!(tokens.verify(&token).await.expect("a valid token"), first);
}

async fn concurrent_verifications_are_independent(tokens) {
    let tokens = &tokens;
    join_all((0..32).map(|number| async move {
        let name = format!("user-{number}");
        let token = (tokens.mint)(&name, tokens.in_an_hour());
        let claims = tokens.verify(&token).await.expect("a valid token");
        assert_eq!(claims.user, user(&name));
        let result = tokens.verify(&format!("no.token.{number}")).await;
        assert!(matches!(result, Err(TokenError::Invalid(_))), "{result:?}");
    }))
    .await;
}

}
