//! The whole subsystem under a real supervisor, on a real store in a directory of its own.

mod battery;
mod cancel;
mod fires;
mod kinds;

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use serde_json::{Value, json};
use supervision::{Heartbeats, NodeSnapshot, Tree};
use tokio::time::timeout;

use super::*;
use crate::jobs::{Cadence, JobContext, JobDone, JobError, JobHandler, Notify, Panic};
use crate::model::{Clock, TenantId, TraceContext, new_id};
use crate::store::contract::START_MS;
use crate::store::{Before, ClaimJobs, Effect, JobState, NewChannel, NewDelivery, SqliteOptions, SqliteStore, Store};

/// Longest wait for anything here; what is not there by then never will be.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running scheduler and what it stands on.
struct House {
    scheduler: Scheduler,
    store: SharedStore,
    tree: Tree,
    clock: Clock,
    deliveries: Poke,
    directory: tempfile::TempDir,
}

/// Quick in everything but the poll: what is to happen soon must come from a poke or a known time.
fn quick() -> Settings {
    Settings {
        poll_interval_ms: 30_000,
        fire_interval_ms: 30_000,
        heartbeat_ms: 100,
        sweep_interval_ms: 100,
        retry_base_ms: 1,
        retry_cap_ms: 10,
        settle_wait_ms: 1,
        park_max_ms: 100,
        ..Settings::default()
    }
}

impl House {
    async fn new(settings: Settings, handlers: Handlers) -> Self {
        Self::with_clock(settings, handlers, Clock::system()).await
    }

    async fn with_clock(settings: Settings, handlers: Handlers, clock: Clock) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = open(&directory, clock.clone(), 20_000).await;
        Self::on(store, settings, handlers, clock, directory).await
    }

    async fn on(
        store: SharedStore,
        settings: Settings,
        handlers: Handlers,
        clock: Clock,
        directory: tempfile::TempDir,
    ) -> Self {
        let deliveries = Poke::new();
        let scheduler = Scheduler::new(settings, Arc::clone(&store), handlers, deliveries.clone()).unwrap();
        let root = SupervisorSpec::new("root", Strategy::OneForOne).child(super::scheduler(
            &scheduler,
            supervision::Intensity::new(5, Duration::from_secs(60)),
            supervision::Backoff::default(),
        ));
        let tree = Tree::start(root, Heartbeats::new()).await.unwrap();
        Self { scheduler, store, tree, clock, deliveries, directory }
    }

    async fn enqueue(&self, of: &str, kind: &str, payload: Value, count: usize) -> Vec<Job> {
        let new = || NewJob::new(tenant(of), kind, payload.clone());
        self.scheduler.enqueue((0..count).map(|_| new()).collect()).await.unwrap()
    }

    async fn read(&self, job: &Job) -> Job {
        self.store.get_job(&job.tenant, job.id).await.unwrap().unwrap()
    }

    /// Waits until the job is in this state, and answers it.
    async fn until(&self, job: &Job, state: JobState) -> Job {
        eventually(&format!("job to be {state:?}"), async || {
            Some(self.read(job).await).filter(|job| job.state == state)
        })
        .await
    }

    async fn until_all_done(&self, jobs: &[Job]) {
        for job in jobs {
            self.until(job, JobState::Done).await;
        }
    }

    /// The incarnations of the subsystem and its actors.
    fn incarnations(&self) -> Vec<(String, u64)> {
        let snapshot: NodeSnapshot = self.tree.snapshot();
        let nodes = snapshot.walk().into_iter().map(|node| (node.path.to_string(), node.incarnation));
        nodes.filter(|(path, _)| path.starts_with(ID)).collect()
    }

    async fn stop_cleanly(self) {
        let report = self.tree.stop().await;
        assert!(report.is_clean(), "{report:?}");
    }
}

async fn open(directory: &tempfile::TempDir, clock: Clock, deadline_ms: u64) -> SharedStore {
    let url = format!("sqlite://{}/store.db", directory.path().display());
    let options = SqliteOptions { clock, deadline_ms, ..SqliteOptions::default() };
    Arc::new(SqliteStore::open(&url, options).await.unwrap())
}

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

/// Asks until there is an answer. SQLite works on threads of its own, so that time cannot be paused here.
async fn eventually<T>(what: &str, ask: impl AsyncFn() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// A handler that counts its runs, and does one of a few things.
#[derive(Clone)]
struct Work(Arc<WorkState>);

struct WorkState {
    manner: Manner,
    runs: AtomicU32,
    of_job: Mutex<HashMap<Uuid, u32>>,
    cancelled: AtomicBool,
    open: tokio::sync::Semaphore,
}

enum Manner {
    /// Ends at once.
    Quick,
    /// Ends when let go.
    Gated,
    /// Ends when cancelled.
    UntilCancelled,
    /// Never ends by itself.
    Deaf,
    /// Wants the same delivery twice, which no store can do.
    Impossible(Uuid),
}

impl Work {
    fn new(manner: Manner) -> Self {
        let (runs, of_job, cancelled) = (AtomicU32::new(0), Mutex::default(), AtomicBool::new(false));
        Self(Arc::new(WorkState { manner, runs, of_job, cancelled, open: tokio::sync::Semaphore::new(0) }))
    }

    fn runs(&self) -> u32 {
        self.0.runs.load(Ordering::SeqCst)
    }

    async fn until_runs(&self, count: u32) {
        eventually("runs", async || (self.runs() >= count).then_some(())).await;
    }
}

impl JobHandler for Work {
    const KIND: &'static str = "work";
    type Payload = Value;

    async fn run(&self, _: Value, context: JobContext) -> std::result::Result<JobDone, JobError> {
        self.0.runs.fetch_add(1, Ordering::SeqCst);
        *self.0.of_job.lock().unwrap().entry(context.job.id).or_default() += 1;
        let mut done = JobDone::default();
        match &self.0.manner {
            Manner::Quick => {}
            Manner::Gated => self.0.open.acquire().await.unwrap().forget(),
            Manner::UntilCancelled => {
                context.cancelled.cancelled().await;
                self.0.cancelled.store(true, Ordering::SeqCst);
                return Err(JobError::retry("cancelled"));
            }
            Manner::Deaf => std::future::pending().await,
            Manner::Impossible(channel) => {
                let delivery = NewDelivery::new(context.job.tenant.clone(), *channel, json!(1));
                done.effects = vec![Effect::Deliver(delivery.clone()), Effect::Deliver(delivery)];
            }
        }
        Ok(done)
    }
}

#[tokio::test]
async fn an_enqueued_job_runs_without_waiting_for_the_poll() {
    let house = House::new(quick(), Handlers::new().with(Work::new(Manner::Quick))).await;
    let jobs = house.enqueue("demo", "work", json!({}), 1).await;
    let asked = tokio::time::Instant::now();
    house.until_all_done(&jobs).await;
    assert!(asked.elapsed() < Duration::from_secs(10), "took {:?}", asked.elapsed());
    house.stop_cleanly().await;
}

#[tokio::test]
async fn a_job_for_later_runs_at_its_time_and_not_at_the_next_poll() {
    let house = House::new(quick(), Handlers::new().with(Work::new(Manner::Quick))).await;
    let later =
        NewJob { run_at_ms: Some(crate::model::now_ms() + 300), ..NewJob::new(tenant("demo"), "work", json!({})) };
    let job = house.scheduler.enqueue(vec![later]).await.unwrap().remove(0);
    assert_eq!(job.state, JobState::Scheduled);
    let done = house.until(&job, JobState::Done).await;
    let late_ms = done.claimed_at_ms.unwrap() - done.run_at_ms;
    assert!((0..10_000).contains(&late_ms), "{late_ms} ms late");
}

#[tokio::test]
async fn one_tenants_thousand_panicking_jobs_cost_another_tenant_nothing() {
    let house = House::new(quick(), Handlers::new().with(Work::new(Manner::Quick)).with(Panic)).await;
    let bad = house.enqueue("bad", "panic", json!({}), 1_000).await;
    let good = house.enqueue("good", "work", json!({}), 100).await;
    house.until_all_done(&good).await;
    let dead = house.store.job_counts().await.unwrap().dead;
    assert!(dead < 1_000, "the good jobs waited for all bad ones");
    for job in &bad {
        let dead = house.until(job, JobState::Dead).await;
        let reason = dead.last_error.unwrap();
        assert!(reason.starts_with("quarantined after 3 crashes: panicked: a job of the kind"), "{reason}");
        assert_eq!(dead.crashes, 3);
    }
    assert!(house.incarnations().iter().all(|(_, incarnation)| *incarnation == 1), "{:?}", house.incarnations());
    house.stop_cleanly().await;
}

#[tokio::test]
async fn a_job_that_runs_may_end_during_the_drain() {
    let work = Work::new(Manner::Gated);
    let house = House::new(quick(), Handlers::new().with(work.clone())).await;
    let jobs = house.enqueue("demo", "work", json!({}), 3).await;
    work.until_runs(3).await;
    let (report, ()) = tokio::join!(house.tree.stop(), async {
        eventually("the stop", async || {
            house
                .tree
                .snapshot()
                .find("scheduler.claimer")
                .filter(|node| node.status != supervision::Status::Up)
                .map(drop)
        })
        .await;
        work.0.open.add_permits(3);
    });
    assert!(report.is_clean(), "{report:?}");
    for job in &jobs {
        assert_eq!(house.read(job).await.state, JobState::Done);
    }
}

#[tokio::test]
async fn what_cannot_end_in_time_is_given_back_without_charge() {
    for manner in [Manner::UntilCancelled, Manner::Deaf] {
        let work = Work::new(manner);
        let settings = Settings { concurrency: 2, stop_within_ms: 3_450, ..quick() };
        let house = House::new(settings, Handlers::new().with(work.clone())).await;
        let jobs = house.enqueue("demo", "work", json!({}), 10).await;
        work.until_runs(2).await;
        let report = house.tree.stop().await;
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(work.runs(), 2, "a job began after the stop");
        for job in &jobs {
            let back = house.read(job).await;
            assert_eq!((back.state, back.charged(), back.crashes), (JobState::Ready, 0, 0));
        }
    }
}

#[tokio::test]
async fn a_panic_of_any_of_its_actors_loses_no_job() {
    let work = Work::new(Manner::Quick);
    let house = House::new(quick(), Handlers::new().with(work.clone())).await;
    let mut jobs = Vec::new();
    for actor in ["claimer", "runners", "settler", "reporter", "firer", "sweeper"] {
        jobs.extend(house.enqueue("demo", "work", json!({}), 100).await);
        house.tree.inject_panic(format!("{ID}.{actor}").as_str()).await.unwrap();
    }
    house.until_all_done(&jobs).await;
    let restarted = eventually("all to be back", async || {
        let nodes = house.incarnations();
        nodes.iter().filter(|(path, _)| path != ID).all(|(_, incarnation)| *incarnation == 2).then_some(nodes)
    });
    assert_eq!(restarted.await.len(), 7);
    house.stop_cleanly().await;
}

#[tokio::test]
async fn a_lost_lease_cancels_the_job_and_its_late_answer_changes_nothing() {
    let work = Work::new(Manner::UntilCancelled);
    // A sweep of its own would only be faster than the one here.
    let settings = Settings { sweep_interval_ms: 60_000, ..quick() };
    let clock = Clock::manual(START_MS);
    let house = House::with_clock(settings, Handlers::new().with(work.clone()), clock).await;
    let job = house.enqueue("demo", "work", json!({}), 1).await.remove(0);
    work.until_runs(1).await;
    // The other process finds the lease over and takes the job, between two heartbeats of this one.
    let other = Uuid::now_v7();
    let claim = ClaimJobs { queue: "default", owner: other, lease_ms: 90_000, limit: 1, tenant_running_max: 9 };
    let stolen = eventually("the lease to run out", async || {
        house.clock.advance(30_001);
        house.store.sweep(9, 10).await.unwrap();
        house.store.claim(claim).await.unwrap().jobs.pop()
    })
    .await;
    assert_eq!((stolen.id, stolen.attempt > 1), (job.id, true));
    eventually("the cancel", async || work.0.cancelled.load(Ordering::SeqCst).then_some(())).await;
    eventually("the late answer", async || (house.scheduler.0.flight.unwritten() == 0).then_some(())).await;
    let now = house.read(&job).await;
    assert_eq!((now.state, now.attempt), (JobState::Running, stolen.attempt));
    assert_eq!(house.scheduler.0.flight.room(), quick().held_max());
}

#[tokio::test]
async fn a_clock_that_jumps_does_not_take_our_own_jobs_from_us() {
    let work = Work::new(Manner::Gated);
    // No heartbeat of its own comes to help between two sweeps.
    let settings = Settings { heartbeat_ms: 15_000, poll_interval_ms: 50, ..quick() };
    let house = House::with_clock(settings, Handlers::new().with(work.clone()), Clock::manual(START_MS)).await;
    let job = house.enqueue("demo", "work", json!({}), 1).await.remove(0);
    work.until_runs(1).await;
    let last_sweep_ms = || {
        let beats = house.tree.heartbeats().snapshot();
        beats.iter().find(|beat| beat.loop_name == sweeper::ID).and_then(|beat| beat.last_tick_at_ms).unwrap_or(0)
    };
    for jump_ms in [7_200_000, 7_200_000, -7_200_000, -7_200_000, 7_200_000] {
        house.clock.advance(jump_ms);
        // The second tick from now is of a sweep that began after the jump.
        for _ in 0..2 {
            let before = last_sweep_ms();
            eventually("a sweep", async || (last_sweep_ms() > before).then_some(())).await;
        }
    }
    work.0.open.add_permits(3);
    let done = house.until(&job, JobState::Done).await;
    assert_eq!((work.runs(), done.attempt, done.crashes), (1, 1, 0));
}

#[tokio::test]
async fn a_store_that_is_away_parks_the_loops_and_ends_none() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory, Clock::system(), 100).await;
    let handlers = Handlers::new().with(Work::new(Manner::Quick));
    let busy = Settings { poll_interval_ms: 20, sweep_interval_ms: 20, ..quick() };
    let house = House::on(store, busy, handlers, Clock::system(), directory).await;
    let before = house.enqueue("demo", "work", json!({}), 1).await;
    house.until_all_done(&before).await;
    let file = format!("sqlite://{}/store.db", house.directory.path().display());
    let mut thief = <sqlx::SqliteConnection as sqlx::Connection>::connect(&file).await.unwrap();
    sqlx::query("BEGIN IMMEDIATE").execute(&mut thief).await.unwrap();
    let refused = house.scheduler.enqueue(vec![NewJob::new(tenant("demo"), "work", json!({}))]).await.unwrap_err();
    assert!(refused.is_retryable(), "{refused}");
    // Whoever ticks now has met the lock: a call ends after 100 ms at the latest.
    let met_by_ms = crate::model::now_ms() + 200;
    eventually("the claimer and the sweeper to meet the lock", async || {
        let beats = house.tree.heartbeats().snapshot();
        let ticked = |name| beats.iter().any(|beat| beat.loop_name == name && beat.last_tick_at_ms > Some(met_by_ms));
        (ticked(claimer::ID) && ticked(sweeper::ID)).then_some(())
    })
    .await;
    sqlx::query("ROLLBACK").execute(&mut thief).await.unwrap();
    let after = eventually("the store", async || {
        house.scheduler.enqueue(vec![NewJob::new(tenant("demo"), "work", json!({}))]).await.ok()
    })
    .await;
    house.until_all_done(&after).await;
    assert!(house.incarnations().iter().all(|(_, incarnation)| *incarnation == 1), "{:?}", house.incarnations());
}

#[tokio::test]
async fn an_end_that_cannot_be_written_holds_up_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory, Clock::system(), 20_000).await;
    let channel = new_channel(&*store, "demo").await;
    let handlers = Handlers::new().with(Work::new(Manner::Impossible(channel))).with(Notify);
    let house = House::on(store, quick(), handlers, Clock::system(), directory).await;
    let impossible = house.enqueue("demo", "work", json!({}), 3).await;
    let possible = house.enqueue("demo", "notify", json!({ "channel": channel, "data": 1 }), 3).await;
    house.until_all_done(&possible).await;
    for job in &impossible {
        let dead = house.until(job, JobState::Dead).await;
        let reason = dead.last_error.unwrap();
        assert!(reason.starts_with("its end could not be written: settle: UNIQUE constraint failed"), "{reason}");
    }
    assert_eq!(house.store.list_deliveries(&tenant("demo"), channel, None, Before::newest(10)).await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_notification_is_a_delivery_of_the_same_story() {
    let house = House::new(quick(), Handlers::new().with(Notify)).await;
    let channel = new_channel(&*house.store, "demo").await;
    let origin = "0af7651916cd43dd8448eb211c80319c";
    let notify = NewJob {
        context: TraceContext::from_parts(Some(&format!("00-{origin}-b7ad6b7169203331-01")), None),
        ..NewJob::new(tenant("demo"), "notify", json!({ "channel": channel, "data": { "n": 1 } }))
    };
    let job = house.scheduler.enqueue(vec![notify]).await.unwrap().remove(0);
    timeout(PATIENCE, house.deliveries.wait()).await.unwrap();
    let delivery =
        house.store.list_deliveries(&tenant("demo"), channel, None, Before::newest(10)).await.unwrap().remove(0);
    assert_eq!((delivery.job, &delivery.data), (Some(job.id), &json!({ "n": 1 })));
    assert_eq!(delivery.context.origin().as_deref(), Some(origin));
    assert_eq!(house.read(&job).await.result, Some(json!({ "delivery": delivery.id })));
}

#[tokio::test]
async fn a_notification_for_another_tenants_channel_is_dead_with_the_reason() {
    let house = House::new(quick(), Handlers::new().with(Notify)).await;
    let foreign = new_channel(&*house.store, "other").await;
    let job = house.enqueue("demo", "notify", json!({ "channel": foreign, "data": 1 }), 1).await.remove(0);
    let dead = house.until(&job, JobState::Dead).await;
    assert_eq!(dead.last_error, Some(format!("the tenant has no channel {foreign}")));
}

#[tokio::test]
async fn a_schedule_fires_and_its_jobs_run() {
    let clock = Clock::manual(START_MS);
    let house = House::with_clock(quick(), Handlers::new().with(Work::new(Manner::Quick)), clock).await;
    let every = Cadence::every(60_000).unwrap();
    house.scheduler.create_schedule(NewSchedule::new(tenant("demo"), every, "work", json!({}))).await.unwrap();
    let done = async |count| {
        let counts = house.store.job_counts().await.unwrap();
        (counts.done == count).then_some(())
    };
    eventually("the first fire", || done(1)).await;
    house.clock.advance(60_000);
    house.scheduler.0.firer.poke();
    eventually("the second fire", || done(2)).await;
}

async fn new_channel(store: &dyn Store, of: &str) -> Uuid {
    let channel = NewChannel {
        id: new_id(),
        tenant: tenant(of),
        kind: "webhook".to_owned(),
        url: "https://example.com/".to_owned(),
        secret: "whsec_c2VjcmV0".to_owned().into(),
        chat: None,
    };
    store.create_channel(channel).await.unwrap().id
}
