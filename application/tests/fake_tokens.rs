//! The tokens that tests use keep every promise that the real ones keep.

use std::sync::Arc;

use belfry_application::testing::contracts::token_verifier::{Tokens, promises};
use belfry_application::testing::{FakeTokens, at};

#[tokio::test]
async fn the_fake_tokens_keep_the_promises_of_a_token_verifier() {
    for promise in promises() {
        let mint =
            |name: &str, end: belfry_domain::Timestamp| format!("{name}:{}", end.unix_millis());
        let now = at(1_800_000_000_000);
        promise.check(Tokens::new(Arc::new(FakeTokens), mint, now)).await;
    }
}
