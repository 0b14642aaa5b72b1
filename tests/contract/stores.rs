//! The contract of the stores, for the fake in memory, the decorators that record metrics, SQLite and PostgreSQL.

use std::sync::Arc;

use belfry_adapters::outbound::metrics::{MeteredInboxes, MeteredOutbox};
use belfry_adapters::outbound::postgres::{PostgresSettings, PostgresStore};
use belfry_adapters::outbound::sqlite::{SqliteSettings, SqliteStore};
use belfry_adapters::wire::EventForm;
use belfry_application::testing::contracts::Promise;
use belfry_application::testing::contracts::store::{Store, promises};
use belfry_application::testing::{InMemoryStore, epoch};
use belfry_tests::postgres::fresh_database;
use libtest_mimic::Trial;

use crate::trial;

type StorePromise = Promise<Store>;

pub(crate) fn trials() -> Vec<Trial> {
    let name = |store: &str, promise: &StorePromise| format!("{store}::{}", promise.name());
    let mut trials = Vec::new();
    for promise in promises() {
        trials.push(trial(name("memory", &promise), || memory(promise)));
    }
    for promise in promises() {
        trials.push(trial(name("metered", &promise), || metered(promise)));
    }
    for promise in promises() {
        trials.push(trial(name("sqlite", &promise), || sqlite(promise)));
    }
    for promise in promises() {
        trials.push(trial(name("sqlite_in_memory", &promise), || sqlite_in_memory(promise)));
    }
    for promise in promises() {
        trials.push(trial(name("postgres", &promise), || postgres(promise)));
    }
    trials
}

async fn memory(promise: StorePromise) {
    let store = InMemoryStore::new(epoch("e1"));
    promise.check(Store::of(store, InMemoryStore::encode_event)).await;
}

async fn metered(promise: StorePromise) {
    let store = Store::of(InMemoryStore::new(epoch("e1")), InMemoryStore::encode_event);
    let store = store.decorated(
        |inboxes| Arc::new(MeteredInboxes::new(inboxes)),
        |outbox| Arc::new(MeteredOutbox::new(outbox)),
    );
    promise.check(store).await;
}

async fn sqlite(promise: StorePromise) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/belfry.db", folder.path().display());
    let store = SqliteStore::open(SqliteSettings::new(url)).await.unwrap();
    store.migrate().await.unwrap();
    promise.check(Store::of(store.clone(), EventForm::write)).await;
    store.close().await;
}

async fn sqlite_in_memory(promise: StorePromise) {
    let settings = SqliteSettings::new("sqlite::memory:");
    let store = SqliteStore::open(settings).await.unwrap();
    store.migrate().await.unwrap();
    promise.check(Store::of(store, EventForm::write)).await;
}

async fn postgres(promise: StorePromise) {
    let database = fresh_database().await;
    let settings = PostgresSettings::new(database.url());
    let store = PostgresStore::connect(settings).await.unwrap();
    store.migrate().await.unwrap();
    promise.check(Store::of(store.clone(), EventForm::write)).await;
    store.close().await;
}
