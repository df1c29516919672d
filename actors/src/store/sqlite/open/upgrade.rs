//! A store that the first program wrote is opened by this one: every row is kept.

use std::time::Duration;

use serde_json::json;
use sqlx::SqlitePool;
use sqlx::migrate::Migrator;
use tempfile::TempDir;
use uuid::Uuid;

use super::{SqliteOptions, SqliteStore, connect_options, known};
use crate::model::{TenantId, new_id};
use crate::store::{ClaimDeliveries, FireDue, JobFilter, KeyHash, Quotas, Store};

fn url(directory: &TempDir) -> String {
    format!("sqlite://{}/store.db", directory.path().display())
}

/// An empty store as the first program left it.
async fn first_schema(directory: &TempDir) -> SqlitePool {
    let options = connect_options(&url(directory), Duration::from_secs(5)).unwrap().create_if_missing(true);
    let old = SqlitePool::connect_with(options).await.unwrap();
    Migrator::with_migrations(known()[..1].to_vec()).run(&old).await.unwrap();
    old
}

async fn upgraded(directory: &TempDir) -> SqliteStore {
    SqliteStore::open(&url(directory), SqliteOptions::default()).await.unwrap()
}

fn demo() -> TenantId {
    TenantId::new("demo").unwrap()
}

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// One row in every table of the first program, all under the same id.
async fn fill(old: &SqlitePool, id: Uuid, key: &KeyHash) {
    for row in [
        "INSERT INTO tenants VALUES ('demo', ?2, 1)",
        "INSERT INTO jobs (id, tenant, queue, kind, payload, state, priority, max_attempts, run_at_ms, created_at_ms,
                           schedule_id, fire_at_ms, traceparent)
         VALUES (?1, 'demo', 'default', 'publish', '{}', 'ready', 0, 3, 0, 0, ?1, 5, ?3)",
        "INSERT INTO turns VALUES ('default', 'demo', 7)",
        "INSERT INTO schedules (id, tenant, every_ms, queue, kind, payload, jitter_ms, max_attempts, next_fire_at_ms,
                                created_at_ms, traceparent)
         VALUES (?1, 'demo', 60000, 'default', 'publish', '{}', 0, 3, 60000, 0, ?3)",
        "INSERT INTO channels VALUES (?1, 'demo', 'webhook', 'https://example.com/', 'whsec_c2VjcmV0', 2, NULL)",
        "INSERT INTO deliveries (id, tenant, channel_id, data, state, due_at_ms, created_at_ms, traceparent)
         VALUES (?1, 'demo', ?1, '[1]', 'pending', 0, 3, ?3)",
        "INSERT INTO pings VALUES (1, 4)",
    ] {
        let insert = sqlx::query(row).bind(id.to_string()).bind(key.as_str()).bind(TRACE);
        insert.execute(old).await.unwrap();
    }
}

#[tokio::test]
async fn a_row_of_every_table_of_the_first_program_is_read_and_worked_on() {
    let directory = tempfile::tempdir().unwrap();
    let (old, id, key) = (first_schema(&directory).await, new_id(), KeyHash::of("pk_one"));
    fill(&old, id, &key).await;
    old.close().await;

    let (store, tenant) = (upgraded(&directory).await, demo());
    let faults = sqlx::query("PRAGMA foreign_key_check").fetch_all(&store.readers().ok().unwrap()).await.unwrap();
    assert!(faults.is_empty(), "a row lost the one it belongs to");

    let known = store.tenant_by_key_hash(&key).await.unwrap().unwrap();
    assert_eq!((known.id, known.disabled_at_ms, known.quotas), (tenant.clone(), None, Quotas::default()));
    let job = store.get_job(&tenant, id).await.unwrap().unwrap();
    assert_eq!(job.fired, Some((id, 5)));
    assert!(job.context.request_id().is_none() && job.context.traceparent().as_deref() == Some(TRACE), "{job:?}");
    let channel = store.get_channel(&tenant, id).await.unwrap().unwrap();
    assert_eq!((channel.created_at_ms, channel.chat, channel.not_before_ms), (2, None, None));

    let fired = store.fire_due(FireDue { catch_up_window_ms: u64::MAX, limit: 9 }).await.unwrap().fired;
    assert_eq!(fired.iter().map(|fired| fired.schedule).collect::<Vec<_>>(), [id]);
    let due = store.due_channels(9, 9).await.unwrap().channels;
    assert_eq!(due.iter().map(|due| due.id).collect::<Vec<_>>(), [id]);
    let claim = ClaimDeliveries { channel: id, owner: new_id(), lease_ms: 45_000, limit: 9 };
    let claimed = store.claim_deliveries(claim).await.unwrap().deliveries.remove(0);
    assert_eq!((claimed.id, claimed.data, claimed.text, claimed.attempts_max), (id, json!([1]), None, None));
    let listed = store.list_jobs(&tenant, &JobFilter::default(), None, 9).await.unwrap();
    assert_eq!(listed.len(), 2, "the one that was there and the one that was fired: {listed:#?}");
    assert!(store.disable_tenant(&tenant).await.unwrap().version > 0);
}

#[tokio::test]
async fn finished_jobs_of_an_older_program_are_kept_and_may_be_cancelled_beside_new_ones() {
    let directory = tempfile::tempdir().unwrap();
    let old = first_schema(&directory).await;
    // Every column with a value of its own.
    let row = "INSERT INTO jobs_done VALUES (?1, 'demo', 'q', 'publish', '{}', ?2, -1, 5, 2, 1, 9, 250, 11, 12, 13,
                                            14, 'why', '[7]', ?3, 15, NULL, '4bf92f3577b34da6a3ce929d0e0e4736')";
    let ids = [new_id(), new_id()];
    for (id, state) in ids.iter().zip(["done", "dead"]) {
        let insert = sqlx::query(row).bind(id.to_string()).bind(state).bind(ids[0].to_string());
        insert.execute(&old).await.unwrap();
    }
    old.close().await;

    let store = upgraded(&directory).await;
    let tenant = demo();
    for (id, state) in ids.iter().zip(["done", "dead"]) {
        let job = store.get_job(&tenant, *id).await.unwrap().unwrap();
        assert_eq!((job.state.as_str(), job.queue.as_str(), job.kind.as_str()), (state, "q", "publish"));
        assert_eq!((job.priority, job.attempt, job.refunds, job.crashes, job.max_attempts), (-1, 5, 2, 1, 9));
        assert_eq!((job.timeout_ms, job.run_at_ms, job.created_at_ms), (Some(250), 11, 12));
        assert_eq!((job.claimed_at_ms, job.finished_at_ms, job.fired), (Some(13), Some(14), Some((ids[0], 15))));
        assert_eq!((job.last_error.as_deref(), job.result), (Some("why"), Some(json!([7]))));
        assert_eq!(job.context.origin().as_deref(), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
    }
    let new = store.enqueue(vec![crate::store::contract::new_job("demo")]).await.unwrap().remove(0);
    store.cancel_job(&tenant, new.id, "cancelled").await.unwrap();
    assert_eq!(store.job_counts().await.unwrap().cancelled, 1);
}
