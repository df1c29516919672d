//! The scheduler beside a bare loop on the same kind of store: how many jobs go through it and what each costs, how long
//! one waits, what a claim costs with many jobs and tenants, when quiet tenants are served behind a noisy one, and how long
//! many schedules of the same minute take to fire.

#[path = "scheduler/fires.rs"]
mod fires;
#[path = "scheduler/peers.rs"]
mod peers;
#[path = "scheduler/postgres.rs"]
mod postgres;
#[path = "scheduler/sqlite.rs"]
mod sqlite;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actors::jobs::{Handlers, JobContext, JobDone, JobError, JobHandler};
use actors::model::{Poke, TenantId, new_id};
use actors::scheduler::{Scheduler, Settings, scheduler};
use actors::store::{ClaimJobs, NewJob, Outcome, Settlement, SharedStore};
use async_trait::async_trait;
use futures_util::future::join_all;
use peers::Peer;
use serde_json::{Value, json};
use supervision::{Backoff, Heartbeats, Intensity, Strategy, SupervisorSpec, Tree};
use tests::bench::{self, Cost, cost, median};
use tests::eventually;
use uuid::Uuid;

/// Jobs that go through the engine, and through the bare loop, in each of so many rounds.
const JOBS: usize = 20_000;
const ROUNDS: usize = 3;
/// Jobs that go through ours and others: what a job costs there may grow with the number of those that wait.
const PEER_JOBS: usize = 5_000;
/// Tenants that they belong to.
const TENANTS: usize = 20;
/// Jobs of one claim, and of one transaction of ends.
const BATCH: u32 = 100;
const DONE: Outcome = Outcome::Done { result: None };
/// Long enough for anything here.
const SOON: Duration = Duration::from_secs(300);

/// A kind of store.
#[async_trait]
trait Ground: Send + Sync {
    /// Its name in the rows.
    fn name(&self) -> &'static str;
    /// What the engine is to reach of the bare loop's rate.
    fn engine_goal(&self) -> f64;
    /// Job queues of others on such a store.
    async fn peers(&self) -> Vec<Peer>;
    /// An empty one, and what must live as long.
    async fn open(&self) -> Site;
    /// What sees the server at work for others, if there is one.
    async fn watch(&self) -> Option<Box<dyn Own>> {
        None
    }
}

/// An open store.
struct Site {
    store: SharedStore,
    /// The same by its own driver.
    own: Box<dyn Own>,
}

/// What is asked of a store without its port.
#[async_trait]
trait Own: Send + Sync {
    /// So many ready jobs of each of so many tenants, whose names begin with `name`, by its own SQL.
    async fn fill(&self, name: &str, tenants: usize, of_each: usize);
    /// So many schedules like this one, of so many tenants, whose last midnight has passed and who have not fired.
    async fn schedules(&self, like: Uuid, tenants: usize, number: usize);
    /// Claims and settles so many jobs of a table of its own, [`BATCH`] in one transaction with the ends of those before.
    async fn bare_loop(&self, jobs: usize) -> Cost;
    /// Inserts so many rows into that table, [`BATCH`] in one transaction.
    async fn bare_insert(&self, jobs: usize) -> Cost;
    /// What its server has used, if it has one.
    async fn server_cpu(&self) -> Option<Duration> {
        None
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    runtime.block_on(async {
        bench::head();
        let postgres = postgres::Postgres::found();
        let postgres = postgres.as_ref().map(|postgres| postgres as &dyn Ground);
        for ground in [&sqlite::Sqlite as &dyn Ground].into_iter().chain(postgres) {
            let is_wanted = |row: &str| {
                let row = format!("{}.{row}", ground.name());
                wanted.as_ref().is_none_or(|wanted| row.contains(wanted))
            };
            if is_wanted("engine") {
                engine(ground).await;
            }
            if is_wanted("verbs") {
                verbs(ground).await;
            }
            if is_wanted("peers") {
                peers::peers(ground).await;
            }
            if is_wanted("enqueue") {
                enqueue(ground).await;
            }
            if is_wanted("latency") {
                latency(ground).await;
            }
            if is_wanted("claim") {
                claims(ground).await;
            }
            if is_wanted("fairness") {
                fairness(ground).await;
            }
            if is_wanted("fires") {
                fires::fires(ground).await;
            }
        }
    });
}

/// What runs: notes when each job began, and does nothing.
#[derive(Clone, Default)]
struct Note(Arc<Noted>);

#[derive(Default)]
struct Noted {
    runs: AtomicUsize,
    /// Of those whose start is of interest: when they were asked for, and how long they waited.
    asked: Mutex<HashMap<Uuid, Instant>>,
    waited: Mutex<Vec<f64>>,
}

impl JobHandler for Note {
    const KIND: &'static str = "note";
    type Payload = Value;

    async fn run(&self, _: Value, context: JobContext) -> Result<JobDone, JobError> {
        let asked = self.0.asked.lock().unwrap().remove(&context.job.id);
        if let Some(asked) = asked {
            self.0.waited.lock().unwrap().push(asked.elapsed().as_secs_f64() * 1e3);
        }
        self.0.runs.fetch_add(1, Ordering::Relaxed);
        Ok(JobDone::default())
    }
}

/// The real actors on a store.
async fn start(store: &SharedStore, note: &Note) -> (Scheduler, Tree) {
    let settings = Settings { batch: BATCH, concurrency: 200, tenant_concurrency: 200, ..Settings::default() };
    let handlers = Handlers::new().with(note.clone());
    let made = Scheduler::new(settings, Arc::clone(store), handlers, Poke::new()).unwrap();
    let child = scheduler(&made, Intensity::new(1, Duration::from_secs(60)), Backoff::default());
    let root = SupervisorSpec::new("root", Strategy::OneForOne).child(child);
    (made, Tree::start(root, Heartbeats::new()).await.unwrap())
}

/// From the first claim to the last end that is written.
async fn engine(ground: &dyn Ground) {
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        // By turns, so that both meet the same machine.
        let site = ground.open().await;
        let before = site.own.server_cpu().await;
        let cost = site.own.bare_loop(JOBS).await;
        bare.push(Run { cost, server: used_since(before, &*site.own).await });
        ours.push(run_all(ground, JOBS).await);
    }
    let each = |runs: &[Run], of: fn(&Run) -> Duration| median(runs.iter().map(|run| us_each(of(run), JOBS)).collect());
    let (ours_us, bare_us) = (each(&ours, |run| run.cost.wall), each(&bare, |run| run.cost.wall));
    let shown = |us: f64| format!("{:.0} jobs/s", 1e6 / us);
    let name = format!("scheduler.{}.engine", ground.name());
    bench::at_least_row(&name, &shown(ours_us), &shown(bare_us), bare_us / ours_us, ground.engine_goal());
    let shown = |us: f64| format!("{us:.0} us");
    let figure = |name: String, of: fn(&Run) -> Duration| {
        let (ours, bare) = (each(&ours, of), each(&bare, of));
        bench::figure_row(&name, &shown(ours), &shown(bare), ours / bare);
    };
    figure(format!("{name}.cpu_per_job"), |run| run.cost.cpu);
    if ours.iter().all(|run| run.server.is_some()) {
        figure(format!("{name}.server_cpu_per_job"), |run| run.server.unwrap_or_default());
    }
}

/// What it took to run some jobs.
struct Run {
    cost: Cost,
    /// CPU of the store's server, if it has one.
    server: Option<Duration>,
}

/// What the server has used since it had used `before`.
async fn used_since(before: Option<Duration>, own: &dyn Own) -> Option<Duration> {
    Some(own.server_cpu().await?.saturating_sub(before?))
}

/// The store's verbs alone, as the engine uses them: how much of its work is the store's.
async fn verbs(ground: &dyn Ground) {
    let bare = ground.open().await.own.bare_loop(JOBS).await;
    let site = ground.open().await;
    site.own.fill("tenant", TENANTS, JOBS / TENANTS).await;
    let ours = cost(async {
        loop {
            let jobs = site.store.claim(request(BATCH, 200)).await.unwrap().jobs;
            if jobs.is_empty() {
                return;
            }
            let done = jobs.iter().map(|job| Settlement::new(job.fence(), DONE));
            site.store.settle(done.collect()).await.unwrap();
        }
    });
    let (ours, bare) = (us_each(ours.await.cpu, JOBS), us_each(bare.cpu, JOBS));
    let shown = |us: f64| format!("{us:.0} us");
    let name = format!("scheduler.{}.verbs.cpu_per_job", ground.name());
    bench::figure_row(&name, &shown(ours), &shown(bare), ours / bare);
}

/// From the first claim to the last end that is written, of jobs that are there already.
async fn run_all(ground: &dyn Ground, jobs: usize) -> Run {
    let site = ground.open().await;
    site.own.fill("tenant", TENANTS, jobs / TENANTS).await;
    let (note, mut tree, store) = (Note::default(), None, &site.store);
    let before = site.own.server_cpu().await;
    let run = cost(async {
        tree = Some(start(store, &note).await.1);
        eventually("all run", SOON, || async { (note.0.runs.load(Ordering::Relaxed) >= jobs).then_some(()) }).await;
        eventually("all done", SOON, || async {
            (store.job_counts().await.unwrap().done == jobs as u64).then_some(())
        })
        .await;
    });
    let run = Run { cost: run.await, server: used_since(before, &*site.own).await };
    assert!(tree.unwrap().stop().await.is_clean());
    run
}

/// Microseconds for each of so many.
fn us_each(of_all: Duration, jobs: usize) -> f64 {
    of_all.as_secs_f64() * 1e6 / jobs as f64
}

/// New jobs in batches beside a bare insert of such batches; and one at a time, by many at once.
async fn enqueue(ground: &dyn Ground) {
    let site = ground.open().await;
    let bare = site.own.bare_insert(JOBS).await;
    let batches = cost(async {
        for _ in 0..JOBS / BATCH as usize {
            site.store.enqueue((0..BATCH).map(|n| job(&format!("tenant-{}", n % 20))).collect()).await.unwrap();
        }
    });
    let batches = batches.await;
    let rate = |cost: Cost, jobs: usize| jobs as f64 / cost.wall.as_secs_f64();
    let shown = |rate: f64| format!("{rate:.0} jobs/s");
    let (ours, bare) = (rate(batches, JOBS), rate(bare, JOBS));
    let name = format!("scheduler.{}.enqueue", ground.name());
    bench::figure_row(&format!("{name}.batch_100"), &shown(ours), &shown(bare), ours / bare);
    let (callers, of_each) = (64, 30);
    let single = cost(async {
        let store = &site.store;
        let call = |n| async move {
            for _ in 0..of_each {
                store.enqueue(vec![job(&format!("tenant-{n}"))]).await.unwrap();
            }
        };
        join_all((0..callers).map(call)).await;
    });
    let single = rate(single.await, callers * of_each);
    bench::figure_row(&format!("{name}.one_by_one"), &shown(single), "-", single / ours);
}

/// 100 jobs a second for 20 s: from the moment at which it is asked for to that at which its handler begins.
async fn latency(ground: &dyn Ground) {
    let site = ground.open().await;
    let note = Note::default();
    let (scheduler, tree) = start(&site.store, &note).await;
    let mut beat = tokio::time::interval(Duration::from_millis(10));
    for n in 0..2_000 {
        beat.tick().await;
        let job = job(&format!("tenant-{}", n % TENANTS));
        note.0.asked.lock().unwrap().insert(job.id, Instant::now());
        scheduler.enqueue(vec![job]).await.unwrap();
    }
    eventually("all run", SOON, || async { (note.0.runs.load(Ordering::Relaxed) >= 2_000).then_some(()) }).await;
    assert!(tree.stop().await.is_clean());
    let mut waited = note.0.waited.lock().unwrap().clone();
    for (name, share, aim) in [("p50", 0.5, 20.0), ("p99", 0.99, 100.0)] {
        let name = format!("scheduler.{}.latency.{name}", ground.name());
        bench::aim_row(&name, quantile(&mut waited, share), aim, "ms");
    }
}

/// Claims over few and many ready jobs, and of few and many tenants that wait.
async fn claims(ground: &dyn Ground) {
    let name = format!("scheduler.{}.claim", ground.name());
    for (name, few, many) in [
        (format!("{name}.p99_1m_jobs_to_1k"), (10, 100), (1_000, 1_000)),
        (format!("{name}.p99_10k_tenants_to_10"), (10, 100), (10_000, 10)),
        (format!("{name}.p99_10k_held_tenants_to_10"), (10, 100), (10_000, 10)),
    ] {
        let mut times = Vec::new();
        for (tenants, of_each) in [few, many] {
            let site = ground.open().await;
            site.own.fill("tenant", tenants, of_each).await;
            if name.contains("held") {
                // All are at their limit, which costs once each to find out; then a few come who are not.
                while claim(&site.store, 500, 1).await != (0, None) {}
                site.own.fill("free", 10, 100).await;
            }
            let most = if name.contains("held") { 1 } else { 1_000_000 };
            times.push(claim_times(&site.store, most).await);
        }
        let (many, few) = (quantile(&mut times[1], 0.99), quantile(&mut times[0], 0.99));
        bench::ratio_row(&name, &format!("{many:.2} ms"), &format!("{few:.2} ms"), many / few, 5.0);
    }
}

/// Of 300 claims, each of ten jobs; in milliseconds.
async fn claim_times(store: &SharedStore, tenant_running_max: u32) -> Vec<f64> {
    let mut times = Vec::new();
    for _ in 0..300 {
        let began = Instant::now();
        let jobs = store.claim(request(10, tenant_running_max)).await.unwrap().jobs;
        times.push(began.elapsed().as_secs_f64() * 1e3);
        // Given back: there are as many as before.
        store.settle(jobs.iter().map(|job| Settlement::new(job.fence(), Outcome::Release)).collect()).await.unwrap();
    }
    times
}

fn request(limit: u32, tenant_running_max: u32) -> ClaimJobs<'static> {
    ClaimJobs { queue: "default", owner: new_id(), lease_ms: 600_000, limit, tenant_running_max }
}

async fn claim(store: &SharedStore, limit: u32, tenant_running_max: u32) -> (usize, Option<u64>) {
    let claimed = store.claim(request(limit, tenant_running_max)).await.unwrap();
    (claimed.jobs.len(), claimed.next_due_in_ms)
}

/// 200,000 jobs of one tenant, and behind them 20 of each of 200 others: when the last of these is claimed.
async fn fairness(ground: &dyn Ground) {
    const NOISY: usize = 200_000;
    const QUIET: usize = 4_000;
    let site = ground.open().await;
    site.own.fill("noisy", 1, NOISY).await;
    site.own.fill("quiet", 200, QUIET / 200).await;
    let (mut position, mut last, mut quiet, mut times) = (0, 0, 0, Vec::new());
    let began = Instant::now();
    while quiet < QUIET {
        let asked = Instant::now();
        let jobs = site.store.claim(request(BATCH, 16)).await.unwrap().jobs;
        times.push(asked.elapsed().as_secs_f64() * 1e3);
        for job in &jobs {
            position += 1;
            if !job.tenant.as_str().starts_with("noisy") {
                (quiet, last) = (quiet + 1, position);
            }
        }
        let done = jobs.iter().map(|job| Settlement::new(job.fence(), DONE));
        site.store.settle(done.collect()).await.unwrap();
    }
    let took = began.elapsed().as_secs_f64();
    let name = format!("scheduler.{}.fairness", ground.name());
    let (last, fifo) = (last as f64, (NOISY + QUIET) as f64);
    let shown = |place: f64| format!("place {place:.0}");
    bench::ratio_row(&format!("{name}.last_quiet_job"), &shown(last), &shown(fifo), last / fifo, 0.021);
    bench::figure_row(&format!("{name}.last_quiet_job.after"), &format!("{took:.2} s"), "-", f64::NAN);
    // What a filter over all ready jobs, `WHERE running < cap`, took for one claim.
    bench::aim_row(&format!("{name}.claim_p50"), quantile(&mut times, 0.5), 14.4, "ms");
}

fn job(of: &str) -> NewJob {
    NewJob::new(TenantId::new(of).unwrap(), "note", json!({"n": 1}))
}

fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share) as usize]
}
