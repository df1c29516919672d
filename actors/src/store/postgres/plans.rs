//! How the server goes about the statements that are asked all the time: by an index, always, however full the tables are.

use serde_json::Value;
use sqlx::{AssertSqlSafe, Row};

use super::tests::open_real;
use super::{Run, Session, attempts, channels, claim, deliveries, fires, jobs, list, loads, prune, settle};

/// Those that grow without an end, or nearly so.
const LARGE: [&str; 4] = ["jobs", "jobs_done", "deliveries", "schedules"];

/// Indexes that hold few rows, whatever the tables hold: jobs that run, suspects, fires that wait for a job.
const SMALL: [&str; 3] = ["jobs_running", "jobs_suspect", "schedules_buffered"];

/// As in a house that is busy and has a history. Of each hundred live jobs one runs.
const FILL: [&str; 6] = [
    "INSERT INTO jobs (id, tenant, queue, kind, payload, state, priority, max_attempts, run_at_ms, created_at_ms,
                       suspect, owner, lease_until_ms, claimed_at_ms, schedule_id, fire_at_ms)
     SELECT gen_random_uuid(), 't' || n % 50, 'q' || n % 3, 'k', '{}',
            CASE WHEN n % 100 = 0 THEN 'running' WHEN n % 3 = 0 THEN 'waiting' ELSE 'ready' END, n % 5, 10, n, n,
            n % 1000 = 0, CASE WHEN n % 100 = 0 THEN gen_random_uuid() END, CASE WHEN n % 100 = 0 THEN n END,
            CASE WHEN n % 100 = 0 THEN n END, CASE WHEN n % 4 = 0 THEN gen_random_uuid() END,
            CASE WHEN n % 4 = 0 THEN n END
     FROM generate_series(1, 20000) AS n",
    "INSERT INTO jobs_done (id, tenant, queue, kind, payload, state, priority, attempt, refunds, crashes, max_attempts,
                            run_at_ms, created_at_ms, finished_at_ms, forget_at_ms)
     SELECT gen_random_uuid(), 't' || n % 50, 'q', 'k', '{}',
            CASE n % 20 WHEN 0 THEN 'dead' WHEN 1 THEN 'cancelled' ELSE 'done' END, 0, 1, 0, 0, 10, n, n, n,
            CASE WHEN n % 10 = 0 THEN n END
     FROM generate_series(1, 20000) AS n",
    "INSERT INTO schedules (id, tenant, every_ms, queue, kind, payload, jitter_ms, max_attempts, next_fire_at_ms,
                            created_at_ms, buffered_fire_at_ms)
     SELECT gen_random_uuid(), 't' || n % 50, 1000, 'q', 'k', '{}', 0, 1, CASE WHEN n % 10 > 0 THEN n END, n,
            CASE WHEN n % 500 = 0 THEN n END
     FROM generate_series(1, 10000) AS n",
    "INSERT INTO channels (id, tenant, kind, url, secret, created_at_ms)
     SELECT gen_random_uuid(), 't' || n % 50, 'webhook', 'u', 's', n FROM generate_series(1, 100) AS n",
    "INSERT INTO deliveries (id, tenant, channel_id, data, state, due_at_ms, created_at_ms, finished_at_ms)
     SELECT gen_random_uuid(), tenant, id, '{}', CASE WHEN n % 4 = 0 THEN 'pending' ELSE 'sent' END, n, n,
            CASE WHEN n % 4 > 0 THEN n END
     FROM channels, generate_series(1, 200) AS n",
    "ANALYZE",
];

/// The plan for any parameters, as the server makes it for a connection of the store.
async fn plan(session: &mut Session, sql: &'static str) -> Value {
    // EXPLAIN itself knows no parameters before PostgreSQL 16.
    let (connection, _) = session.parts();
    let run = async |connection: &mut _, sql: String| sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(connection).await;
    run(&mut *connection, format!("PREPARE asked AS {sql}")).await.unwrap();
    let count = "SELECT cardinality(parameter_types) FROM pg_prepared_statements WHERE name = 'asked'";
    let count: i32 = sqlx::query_scalar(count).fetch_one(&mut *connection).await.unwrap();
    let nulls = vec!["NULL"; count.unsigned_abs() as usize].join(", ");
    let given = if nulls.is_empty() { nulls } else { format!("({nulls})") };
    let rows = run(&mut *connection, format!("EXPLAIN (FORMAT JSON) EXECUTE asked{given}")).await.unwrap();
    run(&mut *connection, "DEALLOCATE asked".to_owned()).await.unwrap();
    let told: String = rows[0].try_get_unchecked(0).unwrap();
    serde_json::from_str::<Value>(&told).unwrap()[0]["Plan"].take()
}

/// Steps that look at more rows than they need. `is_limited`: no more rows of this step are taken than a limit says.
fn wades(step: &Value, is_limited: bool, found: &mut Vec<String>) {
    let text = |field: &str| step[field].as_str().unwrap_or_default();
    let (node, relation) = (text("Node Type"), text("Relation Name"));
    let is_read = node.ends_with("Scan") && LARGE.contains(&relation);
    let is_looked_up =
        !step["Index Cond"].is_null() || !step["TID Cond"].is_null() || SMALL.contains(&text("Index Name"));
    let is_first_rows = is_limited && node.starts_with("Index") && step["Filter"].is_null();
    if is_read && !is_looked_up && !is_first_rows {
        found.push(format!("{node} on {relation} by {:?}, filter {:?}", text("Index Name"), text("Filter")));
    }
    let hands_on = node == "Limit" || (is_limited && node == "LockRows");
    for below in step["Plans"].as_array().into_iter().flatten() {
        wades(below, hands_on, found);
    }
}

/// What is found in these statements, each behind its own.
async fn wading(session: &mut Session, statements: &[&'static str]) -> Vec<String> {
    let mut wading = Vec::new();
    for &sql in statements {
        let mut found = Vec::new();
        wades(&plan(session, sql).await, false, &mut found);
        if !found.is_empty() {
            wading.push(format!("{sql}\n{found:#?}"));
        }
    }
    wading
}

#[tokio::test]
async fn what_is_asked_all_the_time_walks_over_indexes_only() {
    let Some(store) = open_real().await else { return };
    let mut session = store.session().await.unwrap();
    session.execute(sqlx::query("SET plan_cache_mode = force_generic_plan")).await.unwrap();
    let hot = [
        attempts::HOT,
        channels::HOT,
        claim::HOT,
        deliveries::HOT,
        fires::HOT,
        jobs::HOT,
        list::HOT,
        loads::HOT,
        prune::HOT,
        settle::HOT,
    ];
    let hot = hot.concat();
    // A plan that was made while the tables were empty is kept when they are full.
    let when_empty = wading(&mut session, &hot).await;
    assert!(when_empty.is_empty(), "{}", when_empty.join("\n"));
    for fill in FILL {
        session.execute(sqlx::query(fill)).await.unwrap();
    }
    let when_full = wading(&mut session, &hot).await;
    assert!(when_full.is_empty(), "{}", when_full.join("\n"));
    let bad =
        ["SELECT id FROM jobs WHERE kind = $1", "SELECT count(*) FROM jobs_done", "UPDATE deliveries SET data = $1"];
    assert_eq!(wading(&mut session, &bad).await.len(), bad.len(), "the test does not see what it is for");
}
