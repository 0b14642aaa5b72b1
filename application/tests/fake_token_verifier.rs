//! [`FakeTokenVerifier`] fulfils the contract of a token verifier.

use std::sync::Arc;

use belfry_application::testing::contracts::token_verifier::{Tokens, promises};
use belfry_application::testing::{FakeTokenVerifier, at};

#[tokio::test]
async fn fake_token_verifier_fulfils_the_contract() {
    for promise in promises() {
        let mint = |name: &str, expiry: belfry_domain::Timestamp| {
            format!("{name}:{}", expiry.unix_millis())
        };
        let now = at(1_800_000_000_000);
        promise.check(Tokens::new(Arc::new(FakeTokenVerifier), mint, now)).await;
    }
}
