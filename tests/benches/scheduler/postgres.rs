//! PostgreSQL: a database of its own on a private server that keeps what it has committed, for the store, for the bare loop
//! and for others.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use actors::model::new_id;
use actors::store::{PostgresOptions, PostgresStore};
use async_trait::async_trait;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Row};
use tests::bench::{Cost, cost};
use uuid::Uuid;

use super::peers::Peer;
use super::{BATCH, Ground, JOBS, Own, Site};

/// What any durable queue with leases and retention has: the columns and checks of ours, so that its rows are as wide; an
/// index each for what is ready, what waits for its time, whose lease is over, and which ends are old enough to forget.
const BARE: &str = "
    CREATE TABLE bare (LIKE jobs INCLUDING DEFAULTS INCLUDING CONSTRAINTS, PRIMARY KEY (id));
    CREATE INDEX bare_ready ON bare (queue, priority, run_at_ms, id) WHERE state = 'ready';
    CREATE INDEX bare_waiting ON bare (run_at_ms) WHERE state = 'waiting';
    CREATE INDEX bare_lease ON bare (lease_until_ms) WHERE state = 'running';
    CREATE TABLE bare_done (LIKE jobs_done INCLUDING DEFAULTS INCLUDING CONSTRAINTS, PRIMARY KEY (id));
    CREATE INDEX bare_done_finished ON bare_done (state, finished_at_ms);
    ALTER TABLE bare SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000)";

const BARE_INSERT: &str = "
    INSERT INTO bare (id, tenant, queue, kind, payload, state, priority, max_attempts, run_at_ms, created_at_ms)
    SELECT id, 'tenant-0', 'default', 'note', '{\"n\":1}', 'ready', 0, 10, 1000, 1000 FROM unnest($1::uuid[]) AS new (id)";

const BARE_CLAIM: &str = "
    UPDATE bare SET state = 'running', attempt = attempt + 1, owner = $2, claimed_at_ms = now, lease_until_ms = now + 30000
    FROM (SELECT now_ms() AS now) AS clock
    WHERE id = ANY (ARRAY(SELECT id FROM bare WHERE state = 'ready' AND queue = 'default'
                          ORDER BY priority, run_at_ms, id LIMIT $1 FOR UPDATE SKIP LOCKED))
    RETURNING bare.*";

const BARE_SETTLE: &str = "
    WITH ended AS (
        DELETE FROM bare USING unnest($1::uuid[], $2::bigint[], $3::text[]) AS ends (id, attempt, result)
        WHERE bare.id = ends.id AND bare.attempt = ends.attempt AND owner = $4
        RETURNING bare.*, ends.result
    )
    INSERT INTO bare_done (id, tenant, queue, kind, payload, state, priority, attempt, refunds, crashes, max_attempts,
                           timeout_ms, run_at_ms, created_at_ms, claimed_at_ms, finished_at_ms, last_error, result,
                           traceparent, origin_trace_id, request_id)
    SELECT id, tenant, queue, kind, payload, 'done', priority, attempt, refunds, crashes, max_attempts,
           timeout_ms, run_at_ms, created_at_ms, claimed_at_ms, now, last_error, result,
           traceparent, origin_trace_id, request_id
    FROM ended, (SELECT now_ms() AS now) AS clock";

const FILL: &str = "
    INSERT INTO jobs (id, tenant, queue, kind, payload, state, priority, max_attempts, run_at_ms, created_at_ms)
    SELECT (left(md5($1), 8) || '-0000-7000-8000-' || lpad(to_hex(i), 12, '0'))::uuid,
           $1 || '-' || i % $2, 'default', 'note', '{\"n\":1}', 'ready', 0, 10, 1000, 1000
    FROM generate_series(0, $2 * $3 - 1) AS i";

const SCHEDULES: &str = "
    INSERT INTO schedules (id, tenant, cron, time_zone, queue, kind, payload, jitter_ms, max_attempts, next_fire_at_ms,
                           created_at_ms, misfire, overlap)
    SELECT gen_random_uuid(), 'many-' || i % $2, cron, time_zone, queue, kind, payload, jitter_ms, max_attempts,
           next_fire_at_ms - 86400000, created_at_ms, misfire, overlap
    FROM schedules, generate_series(1, $3) AS i WHERE id = $1";

/// What `/proc` counts in.
const TICK_MS: u64 = 10;

/// Its databases.
const PREFIX: &str = "bench_";

pub struct Postgres {
    server: String,
}

impl Postgres {
    /// On the server that the command of the benchmarks has started.
    pub fn found() -> Option<Self> {
        let server = std::env::var("TEST_POSTGRES").ok();
        if server.is_none() {
            println!("skipped: the rows of PostgreSQL; `cargo xtask bench scheduler` starts a server for them");
        }
        Some(Self { server: server? })
    }

    /// The address of a new database. Those before it are gone: the server is not to tidy them up meanwhile.
    async fn database(&self) -> String {
        let server = connect(&self.server).await;
        let old = "SELECT datname FROM pg_database WHERE starts_with(datname, $1)";
        for old in sqlx::query_scalar::<_, String>(old).bind(PREFIX).fetch_all(&server).await.unwrap() {
            run(&server, format!("DROP DATABASE {old} WITH (FORCE)")).await;
        }
        let name = format!("{PREFIX}{}", Uuid::new_v4().simple());
        run(&server, format!("CREATE DATABASE {name}")).await;
        server.close().await;
        let (start, _) = self.server.rsplit_once('/').unwrap();
        format!("{start}/{name}")
    }
}

async fn connect(url: &str) -> PgPool {
    let options: PgConnectOptions = url.parse().unwrap();
    PgPoolOptions::new().max_connections(1).test_before_acquire(false).connect_with(options).await.unwrap()
}

async fn run(pool: &PgPool, sql: String) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(pool).await.unwrap();
}

#[async_trait]
impl Ground for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn engine_goal(&self) -> f64 {
        0.5
    }

    async fn peers(&self) -> Vec<Peer> {
        let Some(program) = std::env::var_os("JOB_PEERS_NODE") else {
            println!("skipped: the job queues of others; `cargo xtask bench scheduler` installs them");
            return Vec::new();
        };
        let url = self.database().await;
        let command = |verb| {
            let mut command = Command::new("node");
            command.arg(&program).arg(verb).arg(&url).arg(JOBS.to_string());
            command
        };
        vec![Peer { name: "graphile-worker", jobs: JOBS, fill: command("fill"), run: command("run"), keep: None }]
    }

    async fn open(&self) -> Site {
        let url = self.database().await;
        let options =
            PostgresOptions { deadline_ms: 60_000, tenant_queued_max: 10_000_000, ..PostgresOptions::default() };
        let store = PostgresStore::open(&url, options).await.unwrap();
        let pool = connect(&url).await;
        for (name, least) in [("fsync", "on"), ("synchronous_commit", "on"), ("full_page_writes", "on")] {
            let set: String =
                sqlx::query_scalar("SELECT current_setting($1)").bind(name).fetch_one(&pool).await.unwrap();
            assert_eq!(set, least, "{name}: what is committed must survive the loss of power");
        }
        Site { store: Arc::new(store), own: Box::new(Database { pool }) }
    }

    async fn watch(&self) -> Option<Box<dyn Own>> {
        Some(Box::new(Database { pool: connect(&self.server).await }))
    }
}

struct Database {
    pool: PgPool,
}

impl Database {
    /// As a store that has been at work: tidied, counted, and written down.
    async fn settle_down(&self, table: &str) {
        run(&self.pool, format!("VACUUM (ANALYZE) {table}")).await;
        run(&self.pool, "CHECKPOINT".to_owned()).await;
    }
}

#[async_trait]
impl Own for Database {
    async fn fill(&self, name: &str, tenants: usize, of_each: usize) {
        let fill = sqlx::query(FILL).bind(name).bind(tenants as i64).bind(of_each as i64);
        fill.execute(&self.pool).await.unwrap();
        self.settle_down("jobs").await;
        self.settle_down("loads").await;
    }

    async fn schedules(&self, like: Uuid, tenants: usize, number: usize) {
        let copy = sqlx::query(SCHEDULES).bind(like).bind(tenants as i64).bind(number as i64);
        copy.execute(&self.pool).await.unwrap();
        self.settle_down("schedules").await;
    }

    async fn bare_loop(&self, jobs: usize) -> Cost {
        run(&self.pool, BARE.to_owned()).await;
        sqlx::query(BARE_INSERT).bind(ids(jobs)).execute(&self.pool).await.unwrap();
        self.settle_down("bare").await;
        cost(claim_and_settle(&self.pool, jobs)).await
    }

    async fn bare_insert(&self, jobs: usize) -> Cost {
        run(&self.pool, BARE.to_owned()).await;
        cost(async {
            for _ in 0..jobs / BATCH as usize {
                sqlx::query(BARE_INSERT).bind(ids(BATCH as usize)).execute(&self.pool).await.unwrap();
            }
        })
        .await
    }

    /// Of the server's own process, of those it has started, and of those of them that have ended.
    async fn server_cpu(&self) -> Option<Duration> {
        let mine: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&self.pool).await.unwrap();
        let server: i32 = process(mine)?[1].parse().ok()?;
        let ticks = |fields: &[String]| fields.iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum::<u64>();
        let mut used = ticks(&process(server)?[11..15]);
        for entry in std::fs::read_dir("/proc").ok()?.flatten() {
            let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let Some(of) = process(number).filter(|of| of[1] == server.to_string()) else { continue };
            used += ticks(&of[11..13]);
        }
        Some(Duration::from_millis(used * TICK_MS))
    }
}

/// What `/proc` says of a process, from its state on: the name before that may hold anything.
fn process(number: i32) -> Option<Vec<String>> {
    let told = std::fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
    let (_, fields) = told.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

fn ids(count: usize) -> Vec<Uuid> {
    (0..count).map(|_| new_id()).collect()
}

async fn claim_and_settle(pool: &PgPool, jobs: usize) {
    let (mut ids, mut attempts, mut settled) = (Vec::<Uuid>::new(), Vec::<i64>::new(), 0);
    let owner = new_id();
    while settled < jobs {
        let mut write = pool.begin().await.unwrap();
        let results = vec![None::<String>; ids.len()];
        let settle = sqlx::query(BARE_SETTLE).bind(&ids).bind(&attempts).bind(results).bind(owner);
        let ended = settle.execute(&mut *write).await.unwrap().rows_affected() as usize;
        assert_eq!(ended, ids.len());
        settled += ended;
        let claim = sqlx::query(BARE_CLAIM).bind(i64::from(BATCH)).bind(owner);
        let rows = claim.fetch_all(&mut *write).await.unwrap();
        write.commit().await.unwrap();
        (ids, attempts) = rows.iter().map(|row| (row.get::<Uuid, _>("id"), row.get::<i64, _>("attempt"))).unzip();
    }
}
