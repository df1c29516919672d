//! SQLite: a file in a directory of its own, opened as the store opens its.

use std::process::Command;
use std::sync::Arc;

use actors::model::new_id;
use actors::store::{SqliteOptions, SqliteStore};
use async_trait::async_trait;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, Row};
use tempfile::TempDir;
use tests::bench::{Cost, cost};
use uuid::Uuid;

use super::peers::Peer;
use super::{BATCH, Ground, Own, PEER_JOBS, Site};

/// Tables with the columns of ours, without what makes ours fair between tenants: no counters, and only the indexes that a
/// claim, a lease and retention need.
const BARE: [&str; 2] = [
    "SELECT replace(sql, 'CREATE TABLE jobs', 'CREATE TABLE IF NOT EXISTS bare') FROM sqlite_schema WHERE name = 'jobs'",
    "SELECT replace(replace(sql, '\"jobs_done\"', 'jobs_done'), 'CREATE TABLE jobs_done', 'CREATE TABLE IF NOT EXISTS bare_done')
     FROM sqlite_schema WHERE name = 'jobs_done'",
];

const BARE_INDEXES: &str = "
    CREATE INDEX IF NOT EXISTS bare_ready ON bare (priority, run_at_ms, id) WHERE state = 'ready';
    CREATE INDEX IF NOT EXISTS bare_lease ON bare (lease_until_ms) WHERE state = 'running';
    CREATE INDEX IF NOT EXISTS bare_finished ON bare_done (finished_at_ms)";

const BARE_INSERT: &str = "
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
    INSERT INTO bare (id, tenant, queue, kind, payload, state, priority, max_attempts, run_at_ms, created_at_ms)
    SELECT printf('%08x-0000-7000-8000-%012x', 0, coalesce((SELECT max(rowid) FROM bare), 0) + i), 'tenant', 'default',
           'note', '{\"n\":1}', 'ready', 0, 10, 1000, 1000
    FROM n";

const BARE_CLAIM: &str = "
    UPDATE bare SET state = 'running', attempt = attempt + 1, owner = ?2, claimed_at_ms = ?3, lease_until_ms = ?3 + 30000
    WHERE id IN (SELECT id FROM bare WHERE state = 'ready' ORDER BY priority, run_at_ms, id LIMIT ?1)
    RETURNING *";

const BARE_FINISH: &str = "
    INSERT INTO bare_done (id, tenant, queue, kind, payload, state, priority, attempt, refunds, crashes, max_attempts, run_at_ms,
                           created_at_ms, claimed_at_ms, finished_at_ms)
    SELECT id, tenant, queue, kind, payload, 'done', priority, attempt, refunds, crashes, max_attempts, run_at_ms, created_at_ms,
           claimed_at_ms, ?2
    FROM (SELECT value AS ended FROM json_each(?1)) CROSS JOIN bare ON id = ended WHERE bare.state = 'running'";

const BARE_LEAVE: &str = "DELETE FROM bare WHERE id IN (SELECT value FROM json_each(?1))";

const FILL: &str = "
    WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?2 * ?3)
    INSERT INTO jobs (id, tenant, queue, kind, payload, state, priority, max_attempts, run_at_ms, created_at_ms)
    SELECT printf('%08x-0000-7000-8000-%012x', (SELECT count(*) FROM shares), i), ?1 || '-' || (i % ?2), 'default', 'note',
           '{\"n\":1}', 'ready', 0, 10, 1000, 1000
    FROM n";

const SCHEDULES: &str = "
    WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?3)
    INSERT INTO schedules (id, tenant, cron, time_zone, queue, kind, payload, jitter_ms, max_attempts, next_fire_at_ms,
                           created_at_ms, misfire, overlap)
    SELECT printf('00000000-0000-7000-8000-%012x', i), 'many-' || (i % ?2), cron, time_zone, queue, kind, payload, jitter_ms,
           max_attempts, next_fire_at_ms - 86400000, created_at_ms, misfire, overlap
    FROM schedules, n WHERE id = ?1";

pub struct Sqlite;

#[async_trait]
impl Ground for Sqlite {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    fn engine_goal(&self) -> f64 {
        0.4
    }

    async fn peers(&self) -> Vec<Peer> {
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
        let (fill, run) = (command("fill"), command("run"));
        vec![Peer { name: "apalis", jobs: PEER_JOBS, fill, run, keep: Some(keep) }]
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

impl File {
    async fn bare_tables(&self) {
        for table in BARE {
            let create: String = sqlx::query_scalar(table).fetch_one(&self.pool).await.unwrap();
            sqlx::raw_sql(AssertSqlSafe(create)).execute(&self.pool).await.unwrap();
        }
        sqlx::raw_sql(BARE_INDEXES).execute(&self.pool).await.unwrap();
    }
}

#[async_trait]
impl Own for File {
    async fn fill(&self, name: &str, tenants: usize, of_each: usize) {
        let fill = sqlx::query(FILL).bind(name).bind(tenants as i64).bind(of_each as i64);
        fill.execute(&self.pool).await.unwrap();
        // As a store that has been at work: its log is not as long as the file.
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&self.pool).await.unwrap();
    }

    async fn schedules(&self, like: Uuid, tenants: usize, number: usize) {
        let copy = sqlx::query(SCHEDULES).bind(like.to_string()).bind(tenants as i64).bind(number as i64);
        copy.execute(&self.pool).await.unwrap();
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&self.pool).await.unwrap();
    }

    async fn bare_loop(&self, jobs: usize) -> Cost {
        self.bare_tables().await;
        sqlx::query(BARE_INSERT).bind(jobs as i64).execute(&self.pool).await.unwrap();
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&self.pool).await.unwrap();
        cost(claim_and_settle(&self.pool, jobs)).await
    }

    async fn bare_insert(&self, jobs: usize) -> Cost {
        self.bare_tables().await;
        cost(async {
            for _ in 0..jobs / BATCH as usize {
                let mut write = self.pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
                sqlx::query(BARE_INSERT).bind(BATCH).execute(&mut *write).await.unwrap();
                write.commit().await.unwrap();
            }
        })
        .await
    }
}

async fn claim_and_settle(pool: &SqlitePool, jobs: usize) {
    let (mut held, mut settled) = (Vec::<String>::new(), 0);
    let owner = new_id().to_string();
    while settled < jobs {
        let mut write = pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
        let ended = serde_json::to_string(&held).unwrap();
        sqlx::query(BARE_FINISH).bind(&ended).bind(settled as i64).execute(&mut *write).await.unwrap();
        sqlx::query(BARE_LEAVE).bind(&ended).execute(&mut *write).await.unwrap();
        settled += held.len();
        let rows = sqlx::query(BARE_CLAIM).bind(BATCH).bind(&owner).bind(30_000).fetch_all(&mut *write).await.unwrap();
        write.commit().await.unwrap();
        held = rows.iter().map(|row| row.get("id")).collect();
    }
}
