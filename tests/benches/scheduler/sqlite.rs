//! SQLite: a file in a directory of its own, opened as the store opens its.

use std::process::Command;
use std::sync::Arc;

use actors::model::new_id;
use actors::store::{SqliteOptions, SqliteStore};
use async_trait::async_trait;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Row, SqlitePool as Pool};
use tempfile::TempDir;
use tests::bench::{Cost, cost};

use super::{BATCH, Ground, Own, PEER_JOBS, Peer, Site};

/// What a bare queue needs, with the index that its claim needs.
const BARE: &str = "
    CREATE TABLE IF NOT EXISTS bare (id TEXT NOT NULL PRIMARY KEY, kind TEXT NOT NULL, payload TEXT NOT NULL,
                                     state TEXT NOT NULL, priority INTEGER NOT NULL, run_at_ms INTEGER NOT NULL,
                                     attempt INTEGER NOT NULL DEFAULT 0, owner TEXT, lease_until_ms INTEGER) STRICT;
    CREATE INDEX IF NOT EXISTS bare_ready ON bare (priority, run_at_ms, id) WHERE state = 'ready'";

const BARE_INSERT: &str = "
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
    INSERT INTO bare (id, kind, payload, state, priority, run_at_ms)
    SELECT printf('%032x', coalesce((SELECT max(rowid) FROM bare), 0) + i), 'note', '{\"n\":1}', 'ready', 0, 0 FROM n";

const BARE_CLAIM: &str = "
    UPDATE bare SET state = 'running', attempt = attempt + 1, owner = ?2, lease_until_ms = ?3
    WHERE id IN (SELECT id FROM bare WHERE state = 'ready' ORDER BY priority, run_at_ms, id LIMIT ?1)
    RETURNING id, kind, payload, attempt";

const BARE_SETTLE: &str = "UPDATE bare SET state = 'done' WHERE id IN (SELECT value FROM json_each(?1))";

const FILL: &str = "
    WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?2 * ?3)
    INSERT INTO jobs (id, tenant, queue, kind, payload, state, priority, max_attempts, run_at_ms, created_at_ms)
    SELECT printf('%08x-0000-7000-8000-%012x', (SELECT count(*) FROM shares), i), ?1 || '-' || (i % ?2), 'default', 'note',
           '{\"n\":1}', 'ready', 0, 10, 1000, 1000
    FROM n";

pub struct Sqlite;

#[async_trait]
impl Ground for Sqlite {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    fn engine_goal(&self) -> f64 {
        0.4
    }

    fn peers(&self) -> Vec<Peer> {
        let Some(program) = std::env::var_os("JOB_PEERS") else {
            println!("skipped: the job queues of others; `cargo xtask bench scheduler` builds them");
            return Vec::new();
        };
        let keep = tempfile::tempdir().unwrap();
        let file = keep.path().join("peer.db");
        let command = |verb| {
            let mut command = Command::new(&program);
            command.arg(verb).arg(&file).arg(PEER_JOBS.to_string());
            command
        };
        vec![Peer { name: "apalis", fill: command("fill"), run: command("run"), _keep: keep }]
    }

    async fn open(&self) -> Site {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("store.db");
        let options = SqliteOptions { deadline_ms: 60_000, tenant_queued_max: 10_000_000, ..SqliteOptions::default() };
        let store = SqliteStore::open(&format!("sqlite://{}", file.display()), options).await.unwrap();
        let options = SqliteConnectOptions::new().filename(file);
        let options = options.journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Full);
        let pool =
            SqlitePoolOptions::new().max_connections(1).test_before_acquire(false).connect_with(options).await.unwrap();
        Site { store: Arc::new(store), own: Box::new(File { pool, _directory: directory }) }
    }
}

struct File {
    pool: SqlitePool,
    _directory: TempDir,
}

#[async_trait]
impl Own for File {
    async fn fill(&self, name: &str, tenants: usize, of_each: usize) {
        let fill = sqlx::query(FILL).bind(name).bind(tenants as i64).bind(of_each as i64);
        fill.execute(&self.pool).await.unwrap();
        // As a store that has been at work: its log is not as long as the file.
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&self.pool).await.unwrap();
    }

    async fn bare_loop(&self, jobs: usize) -> Cost {
        sqlx::raw_sql(BARE).execute(&self.pool).await.unwrap();
        sqlx::query(BARE_INSERT).bind(jobs as i64).execute(&self.pool).await.unwrap();
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&self.pool).await.unwrap();
        cost(claim_and_settle(&self.pool, jobs)).await
    }

    async fn bare_insert(&self, jobs: usize) -> Cost {
        sqlx::raw_sql(BARE).execute(&self.pool).await.unwrap();
        cost(async {
            for _ in 0..jobs / BATCH as usize {
                let mut write = self.pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
                for _ in 0..BATCH {
                    sqlx::query(BARE_INSERT).bind(1).execute(&mut *write).await.unwrap();
                }
                write.commit().await.unwrap();
            }
        })
        .await
    }
}

async fn claim_and_settle(pool: &Pool, jobs: usize) {
    let (mut held, mut settled) = (Vec::<String>::new(), 0);
    let owner = new_id().to_string();
    while settled < jobs {
        let mut write = pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
        let ended = serde_json::to_string(&held).unwrap();
        sqlx::query(BARE_SETTLE).bind(ended).execute(&mut *write).await.unwrap();
        settled += held.len();
        let rows = sqlx::query(BARE_CLAIM).bind(BATCH).bind(&owner).bind(30_000).fetch_all(&mut *write).await.unwrap();
        write.commit().await.unwrap();
        held = rows.iter().map(|row| row.get("id")).collect();
    }
}
