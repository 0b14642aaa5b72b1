//! The in-memory store keeps every promise that the real ones keep.

use belfry_application::testing::contracts::store::{Store, promises};
use belfry_application::testing::{InMemoryStore, epoch};

#[tokio::test]
async fn the_in_memory_store_keeps_the_promises_of_a_store() {
    for promise in promises() {
        let store = InMemoryStore::new(epoch("e1"));
        promise.check(Store::of(store)).await;
    }
}
