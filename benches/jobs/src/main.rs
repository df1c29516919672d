//! What a job costs in the job queues of others: `job-peers fill FILE JOBS` keeps so many jobs, `job-peers run FILE JOBS` runs
//! them all and prints how long that took in milliseconds, and the CPU of this process meanwhile in microseconds: what it
//! takes to start is no part of a job.
//!
//! apalis on SQLite, with what it takes to compare: a commit survives the loss of power (its own set-up turns that off for
//! the connection that it uses), batches of 100, 200 at a time, and a look every 5 ms.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use apalis::prelude::*;
use apalis_sqlite::{Config, SqliteStorage};
use futures_util::stream;
use nix::time::{ClockId, clock_gettime};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};

const BATCH: usize = 100;
const AT_ONCE: usize = 200;
const LOOK_EVERY: Duration = Duration::from_millis(5);

#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
struct Payload {
    n: u32,
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [verb, file, jobs] = words.as_slice() else { panic!("job-peers fill|run FILE JOBS") };
    let jobs: usize = jobs.parse().unwrap();
    match verb.as_str() {
        "fill" => fill(file, jobs).await,
        "run" => {
            let (took, cpu) = run(file, jobs).await;
            println!("{} {}", took.as_secs_f64() * 1e3, cpu.as_micros());
        }
        other => panic!("no verb {other}"),
    }
}

async fn open(file: &str) -> SqlitePool {
    let options = SqliteConnectOptions::new().filename(file).create_if_missing(true);
    let options = options.journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Full);
    SqlitePoolOptions::new().connect_with(options.busy_timeout(Duration::from_secs(30))).await.unwrap()
}

async fn fill(file: &str, jobs: usize) {
    let pool = open(file).await;
    SqliteStorage::setup(&pool).await.unwrap();
    let mut storage = SqliteStorage::new(&pool);
    for _ in 0..jobs / BATCH {
        let mut tasks = stream::iter((0..BATCH).map(|_| TaskBuilder::new(Payload { n: 1 }).build()));
        storage.push_all(&mut tasks).await.unwrap();
    }
    pool.close().await;
}

async fn run(file: &str, jobs: usize) -> (Duration, Duration) {
    let pool = open(file).await;
    let config = Config::default().batch_size(BATCH).queue(std::any::type_name::<Payload>());
    let storage = SqliteStorage::new(&pool).with_config(config);
    let storage = storage.poll_with_strategy(Strategy::new().interval(LOOK_EVERY));
    let runs = Arc::new(AtomicUsize::new(0));
    let (began, before) = (Instant::now(), cpu_now());
    let worker = WorkerBuilder::new("peer").backend(storage).concurrency(AT_ONCE).data(Arc::clone(&runs)).build(note);
    let running = tokio::spawn(worker.run());
    loop {
        let done = "SELECT count(*) FROM Jobs WHERE status = 'Done'";
        let done: i64 = match runs.load(Ordering::Relaxed) >= jobs {
            true => sqlx::query_scalar(done).fetch_one(&pool).await.unwrap(),
            false => 0,
        };
        if done as usize >= jobs {
            running.abort();
            return (began.elapsed(), cpu_now().saturating_sub(before));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn cpu_now() -> Duration {
    Duration::from(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap())
}

async fn note(payload: Payload, runs: Data<Arc<AtomicUsize>>) -> Result<(), BoxDynError> {
    runs.fetch_add(payload.n as usize, Ordering::Relaxed);
    Ok(())
}
