//! What a verifier of tokens promises ([`TokenVerifier`]).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use belfry_domain::Timestamp;
use futures_util::future::join_all;

use super::promises;
use crate::ports::{BearerToken, Claims, TokenError, TokenVerifier};
use crate::testing::user;

/// A verifier, and somebody whose tokens it trusts.
#[derive(Clone)]
pub struct Tokens {
    verifier: Arc<dyn TokenVerifier>,
    mint: Arc<Mint>,
    now: Timestamp,
}

/// Makes a token of that user, which holds until then.
type Mint = dyn Fn(&str, Timestamp) -> String + Send + Sync;

impl Tokens {
    /// `now` is what the verifier's clock shows.
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

/// Not a letter is changed: `Ada` and `ada` are two users.
async fn a_token_speaks_for_the_user_it_names(tokens) {
    for name in ["ada", "Ada", "42", "auth0|5f7c8ec7", "tenant/7", "ада", "ü".repeat(128).as_str()] {
        let token = (tokens.mint)(name, tokens.in_an_hour());
        let claims = tokens.verify(&token).await.expect("it holds");
        assert_eq!(claims.user, user(name));
    }
}

/// Not earlier than it says; leeway may add to it.
async fn a_token_holds_until_its_end(tokens) {
    let end = tokens.in_an_hour();
    let claims = tokens.verify(&(tokens.mint)("ada", end)).await.expect("it holds");
    assert!(claims.expires_at >= end);
    assert!(claims.expires_at <= end.plus(Duration::from_mins(10)), "leeway is small");
}

/// A verifier without a clock may leave it to the caller, who has one.
async fn a_token_that_ended_says_so(tokens) {
    let long_ago = tokens.now.minus(Duration::from_hours(1));
    match tokens.verify(&(tokens.mint)("ada", long_ago)).await {
        Ok(claims) => assert!(claims.expires_at <= tokens.now),
        Err(error) => assert!(matches!(error, TokenError::Expired), "{error}"),
    }
}

async fn a_token_gives_no_scope_that_it_does_not_name(tokens) {
    let token = (tokens.mint)("ada", tokens.in_an_hour());
    let claims = tokens.verify(&token).await.expect("it holds");
    assert!(!claims.scopes.contain(crate::ports::Scopes::WRITE));
}

async fn what_is_no_token_is_refused_as_such(tokens) {
    for raw in ["x", "a.b.c", "...", "ada", "ü", &"x".repeat(BearerToken::MAX_BYTES)] {
        let refused = tokens.verify(raw).await;
        assert!(matches!(refused, Err(TokenError::Invalid(_))), "{raw:.20}: {refused:?}");
    }
}

async fn a_token_is_judged_the_same_each_time(tokens) {
    let token = (tokens.mint)("ada", tokens.in_an_hour());
    let first = tokens.verify(&token).await.expect("it holds");
    assert_eq!(tokens.verify(&token).await.expect("it holds"), first);
}

/// Also by many at once, and while others show what is none.
async fn a_token_is_judged_by_itself(tokens) {
    let tokens = &tokens;
    join_all((0..32).map(|number| async move {
        let name = format!("user-{number}");
        let token = (tokens.mint)(&name, tokens.in_an_hour());
        let (good, bad) = (tokens.verify(&token).await, format!("no.token.{number}"));
        assert_eq!(good.expect("it holds").user, user(&name));
        let refused = tokens.verify(&bad).await;
        assert!(matches!(refused, Err(TokenError::Invalid(_))), "{refused:?}");
    }))
    .await;
}

}
