//! A scheduler to try things on, and a handler that does as it is told.

use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::*;

/// Longest wait for anything here; what is not there by then never will be.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// A running scheduler and what it stands on.
pub(super) struct House {
    pub(super) scheduler: Scheduler,
    pub(super) store: SharedStore,
    pub(super) tree: Tree,
    pub(super) clock: Clock,
    pub(super) deliveries: Poke,
    pub(super) directory: tempfile::TempDir,
}

/// Quick in everything but the poll: what is to happen soon must come from a poke or a known time.
pub(super) fn quick() -> Settings {
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
    pub(super) async fn new(settings: Settings, handlers: Handlers) -> Self {
        Self::with_clock(settings, handlers, Clock::system()).await
    }

    pub(super) async fn with_clock(settings: Settings, handlers: Handlers, clock: Clock) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = open(&directory, clock.clone(), 20_000).await;
        Self::on(store, settings, handlers, clock, directory).await
    }

    pub(super) async fn on(
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

    pub(super) async fn enqueue(&self, of: &str, kind: &str, payload: Value, count: usize) -> Vec<Job> {
        let new = || NewJob::new(tenant(of), kind, payload.clone());
        self.scheduler.enqueue((0..count).map(|_| new()).collect()).await.unwrap()
    }

    pub(super) async fn read(&self, job: &Job) -> Job {
        self.store.get_job(&job.tenant, job.id).await.unwrap().unwrap()
    }

    /// Waits until the job is in this state, and answers it.
    pub(super) async fn until(&self, job: &Job, state: JobState) -> Job {
        eventually(&format!("job to be {state:?}"), async || {
            Some(self.read(job).await).filter(|job| job.state == state)
        })
        .await
    }

    pub(super) async fn until_all_done(&self, jobs: &[Job]) {
        for job in jobs {
            self.until(job, JobState::Done).await;
        }
    }

    /// Waits for a sweep that has begun after this: the second tick from now is of one.
    pub(super) async fn until_swept(&self) {
        let last_tick_ms = || {
            let beats = self.tree.heartbeats().snapshot();
            beats.iter().find(|beat| beat.loop_name == sweeper::ID).and_then(|beat| beat.last_tick_at_ms).unwrap_or(0)
        };
        for _ in 0..2 {
            let before = last_tick_ms();
            eventually("a sweep", async || (last_tick_ms() > before).then_some(())).await;
        }
    }

    /// The incarnations of the subsystem and its actors.
    pub(super) fn incarnations(&self) -> Vec<(String, u64)> {
        let snapshot: NodeSnapshot = self.tree.snapshot();
        let nodes = snapshot.walk().into_iter().map(|node| (node.path.to_string(), node.incarnation));
        nodes.filter(|(path, _)| path.starts_with(ID)).collect()
    }

    pub(super) async fn stop_cleanly(self) {
        let report = self.tree.stop().await;
        assert!(report.is_clean(), "{report:?}");
    }
}

pub(super) async fn open(directory: &tempfile::TempDir, clock: Clock, deadline_ms: u64) -> SharedStore {
    let url = format!("sqlite://{}/store.db", directory.path().display());
    let options = SqliteOptions { clock, deadline_ms, ..SqliteOptions::default() };
    Arc::new(SqliteStore::open(&url, options).await.unwrap())
}

pub(super) fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

/// Asks until there is an answer. SQLite works on threads of its own, so that time cannot be paused here.
pub(super) async fn eventually<T>(what: &str, ask: impl AsyncFn() -> Option<T>) -> T {
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
pub(super) struct Work(Arc<WorkState>);

struct WorkState {
    manner: Manner,
    runs: watch::Sender<u32>,
    cancelled: CancellationToken,
    open: Semaphore,
}

pub(super) enum Manner {
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
    pub(super) fn new(manner: Manner) -> Self {
        let (runs, cancelled, open) = (watch::Sender::new(0), CancellationToken::new(), Semaphore::new(0));
        Self(Arc::new(WorkState { manner, runs, cancelled, open }))
    }

    pub(super) fn runs(&self) -> u32 {
        *self.0.runs.borrow()
    }

    pub(super) async fn until_runs(&self, count: u32) {
        let mut runs = self.0.runs.subscribe();
        timeout(PATIENCE, runs.wait_for(|runs| *runs >= count)).await.expect("it does not run").unwrap();
    }

    pub(super) async fn until_cancelled(&self) {
        timeout(PATIENCE, self.0.cancelled.cancelled()).await.expect("it is not cancelled");
    }

    /// Lets so many runs end.
    pub(super) fn open(&self, count: usize) {
        self.0.open.add_permits(count);
    }
}

impl JobHandler for Work {
    const KIND: &'static str = "work";
    type Payload = Value;

    async fn run(&self, _: Value, context: JobContext) -> std::result::Result<JobDone, JobError> {
        self.0.runs.send_modify(|runs| *runs += 1);
        let mut done = JobDone::default();
        match &self.0.manner {
            Manner::Quick => {}
            Manner::Gated => self.0.open.acquire().await.unwrap().forget(),
            Manner::UntilCancelled => {
                context.cancelled.cancelled().await;
                self.0.cancelled.cancel();
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

pub(super) async fn new_channel(store: &dyn Store, of: &str) -> Uuid {
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
