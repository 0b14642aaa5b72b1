//! [`InMemoryStore`] fulfils the contract of a store.

use belfry_application::testing::contracts::store::{Store, promises};
use belfry_application::testing::{InMemoryStore, epoch};

#[tokio::test]
async fn in_memory_store_fulfils_the_contract() {
    for promise in promises() {
        let store = InMemoryStore::new(epoch("e1"));
        promise.check(Store::of(store, InMemoryStore::encode_event)).await;
    }
}
