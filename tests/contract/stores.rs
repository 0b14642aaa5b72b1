use belfry_adapters::outbound::postgres::{PostgresSettings, PostgresStore};
use belfry_adapters::outbound::sqlite::{SqliteSettings, SqliteStore};
use belfry_application::testing::contracts::Promise;
use belfry_application::testing::contracts::store::{Store, promises};
use belfry_application::testing::{InMemoryStore, epoch};
use belfry_tests::postgres::fresh_database;
use libtest_mimic::Trial;

use crate::trial;

type Check = Promise<Store>;

pub(crate) fn trials() -> Vec<Trial> {
    let of = |name: &str, promise: &Check| format!("{name}::{}", promise.name());
    let mut trials = Vec::new();
    for promise in promises() {
        trials.push(trial(of("memory", &promise), || memory(promise)));
    }
    for promise in promises() {
        trials.push(trial(of("sqlite", &promise), || sqlite(promise)));
    }
    for promise in promises() {
        trials.push(trial(of("sqlite_in_memory", &promise), || sqlite_in_memory(promise)));
    }
    for promise in promises() {
        trials.push(trial(of("postgres", &promise), || postgres(promise)));
    }
    trials
}

async fn memory(promise: Check) {
    let subject = InMemoryStore::new(epoch("e1"));
    promise.check(Store::of(subject)).await;
}

async fn sqlite(promise: Check) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/belfry.db", folder.path().display());
    let subject = SqliteStore::open(SqliteSettings::new(url)).await.unwrap();
    subject.migrate().await.unwrap();
    promise.check(Store::of(subject.clone())).await;
    subject.close().await;
}

async fn sqlite_in_memory(promise: Check) {
    let settings = SqliteSettings::new("sqlite::memory:");
    let subject = SqliteStore::open(settings).await.unwrap();
    subject.migrate().await.unwrap();
    promise.check(Store::of(subject)).await;
}

async fn postgres(promise: Check) {
    let database = fresh_database().await;
    let settings = PostgresSettings::new(database.url());
    let subject = PostgresStore::connect(settings).await.unwrap();
    subject.migrate().await.unwrap();
    promise.check(Store::of(subject.clone())).await;
    subject.close().await;
}
