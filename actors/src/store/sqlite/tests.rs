//! What the tests of this backend need, and the suite that all backends pass.

use std::sync::Arc;

use sqlx::query::Query;
use sqlx::sqlite::{Sqlite, SqliteArguments};
use uuid::Uuid;

use super::*;
use crate::store::contract::{Fixture, PENDING_MAX, START_MS, contract_tests};

type Statement<'q> = Query<'q, Sqlite, SqliteArguments>;

/// An empty store in a directory of its own, with a clock that stands still.
pub(crate) async fn open() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let (store, clock) = open_in(&directory).await;
    Fixture { store: Arc::new(store), clock, owner: Uuid::now_v7(), _keep: Box::new(directory) }
}

/// What the contract's helpers need of an open store.
pub(crate) fn fixture_in(store: &SqliteStore) -> Fixture {
    let (store, clock) = (Arc::new(store.clone()), store.clock.clone());
    Fixture { store, clock, owner: Uuid::now_v7(), _keep: Box::new(()) }
}

/// The store in `directory`, with a clock that stands still.
pub(crate) async fn open_in(directory: &tempfile::TempDir) -> (SqliteStore, Clock) {
    let clock = Clock::manual(START_MS);
    let url = format!("sqlite://{}/store.db", directory.path().display());
    let options = SqliteOptions {
        clock: clock.clone(),
        deadline_ms: 20_000,
        channel_pending_max: PENDING_MAX,
        ..SqliteOptions::default()
    };
    (SqliteStore::open(&url, options).await.unwrap(), clock)
}

/// Does what no verb does.
pub(crate) async fn execute(store: &SqliteStore, statement: Statement<'_>) {
    let mut write = store.write().await.unwrap();
    statement.execute(&mut *write).await.unwrap();
    write.commit().await.unwrap();
}

/// How SQLite goes about a statement, step by step.
pub(crate) async fn plan(store: &SqliteStore, sql: &str) -> Vec<String> {
    let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
    let steps = sqlx::query(explain).fetch_all(&store.readers().ok().unwrap()).await.unwrap();
    steps.iter().map(|step| sqlx::Row::get(step, "detail")).collect()
}

contract_tests!(super::open);
