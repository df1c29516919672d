//! The stop with five hundred jobs that run: those that end in time are done, the others are given back and not charged,
//! and the next process has them at once.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::{Books, Database, Home, Service, Setup, eventually};

const SOON: Duration = Duration::from_secs(30);

const JOBS: usize = 500;

/// All of the scheduler's stop. What runs may take 5.8 s of it to end by itself.
const BUDGET_MS: u64 = 9_000;

/// So long that it ends within the drain, however late it began.
const SHORT_MS: u64 = 4_000;

/// So long that it does not end within the drain, though it began as long ago as a short one that still runs.
const LONG_MS: u64 = 10_000;

/// Whoever has to wait for the end of a lease comes too late for this test.
const LEASE_MS: u64 = 600_000;

#[tokio::test]
async fn five_hundred_running_jobs_on_sqlite_end_in_time_or_are_given_back() {
    stop_amid_jobs(&Books::File(Home::empty())).await;
}

#[tokio::test]
async fn five_hundred_running_jobs_on_postgres_end_in_time_or_are_given_back() {
    let Some(database) = Database::empty().await else { return };
    stop_amid_jobs(&Books::Server(database)).await;
}

fn roomy(books: &Books) -> Setup {
    let setup = books.setup(Service::setup()).set("scheduler.lease_ms", LEASE_MS);
    let setup = setup.set("scheduler.concurrency", JOBS).set("scheduler.tenant_concurrency", JOBS);
    setup.set("scheduler.stop_budget_ms", BUDGET_MS).set("shutdown.grace_period_ms", 40_000)
}

async fn stop_amid_jobs(books: &Books) {
    let half = JOBS / 2;
    let first = roomy(books).start().await;
    let of_each = |ms: u64| -> Vec<Value> { vec![json!({"kind": "sleep", "payload": {"ms": ms}}); half] };
    for jobs in [of_each(SHORT_MS), of_each(LONG_MS)] {
        first.api().post("/v1/jobs/batch", &json!({ "jobs": jobs })).await.expect(201);
    }
    eventually("all of them run", SOON, || async {
        (first.metrics().await.value("job_running", &[]) == Some(JOBS as f64)).then_some(())
    })
    .await;
    let ended = first.stop().await;
    println!("ended {} ms after the signal", ended.took.as_millis());
    assert_eq!(ended.code, 0, "{}", ended.log());
    assert_eq!(jobs(books, "jobs").await, [counted(half, "ready", 1, 1)]);
    assert_eq!(jobs(books, "jobs_done").await, [counted(half, "done", 1, 0)]);

    let second = roomy(books).start().await;
    let ready = Instant::now();
    eventually("the others run again", SOON, || async {
        (second.metrics().await.value("job_running", &[]) == Some(half as f64)).then_some(())
    })
    .await;
    println!("all that was given back runs {} ms after the next process was ready", ready.elapsed().as_millis());
    eventually("all are done", SOON, || async { jobs(books, "jobs").await.is_empty().then_some(()) }).await;
    assert_eq!(jobs(books, "jobs_done").await, [counted(half, "done", 1, 0), counted(half, "done", 2, 1)]);
    assert_eq!(second.stop().await.code, 0);
}

/// How many jobs there are in each state, with how many attempts of which so many were not charged, and that nothing says
/// of any that its runner was lost.
async fn jobs(books: &Books, table: &str) -> Vec<Vec<String>> {
    let query = format!(
        "SELECT CAST(count(*) AS text), state, CAST(attempt AS text), CAST(refunds AS text), CAST(max(crashes) AS text) \
         FROM {table} GROUP BY state, attempt, refunds ORDER BY attempt"
    );
    books.texts(&query).await
}

fn counted(count: usize, state: &str, attempts: u32, refunds: u32) -> Vec<String> {
    vec![count.to_string(), state.to_owned(), attempts.to_string(), refunds.to_string(), "0".to_owned()]
}
