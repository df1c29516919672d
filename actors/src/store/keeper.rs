//! The child `store`: opens the store when the tree starts, proves on a beat that it answers, forgets on the same beat the
//! requests whose time is over, closes the store at the end.
//!
//! The store itself is shared state that was made before the tree, so that whoever uses it need not be restarted with
//! this actor. Until the keeper has prepared it, every call says that it is unavailable.
//!
//! At the start a store that is away gets [`TRIES`] tries within [`START_WITHIN`]; one that will never do (a newer
//! schema, a file that is no database) gets one. Later an absence is logged and waited out.

use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use supervision::{Address, Backoff, ChildContext, ChildSpec, GuardSite, Heartbeat, Policy, guard};

use super::{SharedStore, StoreError};
use crate::pulse::after;
use crate::seam::seam;

/// How often a store that is away at the start is tried.
const TRIES: u32 = 5;

/// All tries together.
const START_WITHIN: Duration = Duration::from_secs(30);

/// The waits between the tries, shorter than the limit of all together.
const BETWEEN_TRIES: Backoff = Backoff {
    base: Duration::from_millis(500),
    factor: 2.0,
    cap: Duration::from_secs(5),
    jitter: 0.2,
    reset_after: Duration::ZERO,
    first_immediate: false,
};

/// How many requests whose time is over are forgotten on one beat.
const FORGET_MAX: u32 = 1_000;

/// What closing may take: a connection that waits for another process's lock is not waited for.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// A half-done migration would corrupt data, so a panic in one ends the process: it is reported, and not gone on from.
const MIGRATION: GuardSite<'static> = GuardSite {
    component: "store",
    actor: "store",
    policy: Policy::CrashProcess,
    phase: "prepare",
    tenant: None,
    detail: Vec::new(),
};

/// The child `store`, to stand in the tree before everyone who keeps something.
pub fn store(store: SharedStore, interval: Duration) -> ChildSpec {
    ChildSpec::actor("store", &Address::new("store"), move |context| {
        (Keeper, KeeperArguments { store: store.clone(), interval, context })
    })
    .start_within(START_WITHIN)
}

struct Keeper;

struct KeeperArguments {
    store: SharedStore,
    interval: Duration,
    context: ChildContext,
}

/// Ask the store for a sign of life.
#[derive(Debug)]
struct Ping;

struct KeeperState {
    context: ChildContext,
    store: SharedStore,
    interval: Duration,
    heartbeat: Heartbeat,
    /// Whether the ping before was answered, so that a change is logged once and not on every beat.
    is_up: bool,
}

impl Actor for Keeper {
    type Msg = Ping;
    type State = KeeperState;
    type Arguments = KeeperArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Ping>,
        arguments: KeeperArguments,
    ) -> Result<KeeperState, ActorProcessingErr> {
        let KeeperArguments { store, interval, context } = arguments;
        prepare(&store).await?;
        let heartbeat = context.heartbeat("keeper", interval);
        myself.cast(Ping)?;
        Ok(KeeperState { context, store, interval, heartbeat, is_up: true })
    }

    async fn handle(&self, myself: ActorRef<Ping>, _: Ping, state: &mut KeeperState) -> Result<(), ActorProcessingErr> {
        let stopped = state.context.cancelled();
        // A store that is away may take longer to say so than this actor has to stop.
        tokio::select! {
            answer = tend(&state.store) => state.note(answer),
            () = stopped.cancelled() => return Ok(()),
        }
        after(&state.context, myself, state.interval.mul_f64(0.9 + 0.1 * fastrand::f64()), || Ping);
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<Ping>, state: &mut KeeperState) -> Result<(), ActorProcessingErr> {
        if tokio::time::timeout(CLOSE_WITHIN, state.store.close()).await.is_err() {
            tracing::warn!("the store was not closed in time; what was committed is safe");
        }
        Ok(())
    }
}

impl KeeperState {
    /// The loop has done its work when the ping has ended, whatever it said: a store that is away is no reason to restart
    /// this process, and the health sweep tells of it.
    fn note(&mut self, answer: Result<(), StoreError>) {
        self.heartbeat.beat();
        let was_up = std::mem::replace(&mut self.is_up, answer.is_ok());
        match answer {
            Ok(()) if !was_up => tracing::info!("the store answers again"),
            Ok(()) => {}
            Err(error) if was_up => tracing::warn!(%error, "the store does not answer"),
            Err(_) => {}
        }
    }
}

/// A sign of life, and the only other thing that nobody else does on a beat.
async fn tend(store: &SharedStore) -> Result<(), StoreError> {
    store.ping().await?;
    store.forget_requests(FORGET_MAX).await.map(drop)
}

async fn prepare(store: &SharedStore) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut tries = 1;
    loop {
        let preparing = async {
            seam!("inside_migration");
            store.prepare().await
        };
        match guard(MIGRATION, preparing).await? {
            Err(error) if error.is_retryable() && tries < TRIES => {
                let delay = BETWEEN_TRIES.delay(tries, fastrand::f64());
                tracing::warn!(%error, tries, ?delay, "the store cannot be opened yet");
                tokio::time::sleep(delay).await;
                tries += 1;
            }
            outcome => return Ok(outcome?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use supervision::{Heartbeats, StartError, Strategy, SupervisorSpec, Tree};

    use super::*;
    use crate::model::{TenantId, new_id};
    use crate::store::{BeginRequest, BegunRequest, Fingerprint, SqliteOptions, SqliteStore};

    async fn start(url: &str) -> (SharedStore, Result<Tree, StartError>) {
        let shared: SharedStore = Arc::new(SqliteStore::new(url, SqliteOptions::default()).unwrap());
        let spec =
            SupervisorSpec::new("root", Strategy::OneForOne).child(store(shared.clone(), Duration::from_secs(1)));
        (shared, Tree::start(spec, Heartbeats::new()).await)
    }

    #[tokio::test]
    async fn the_store_is_open_between_the_start_and_the_stop_of_its_keeper() {
        let directory = tempfile::tempdir().unwrap();
        let (shared, tree) = start(&format!("sqlite://{}/store.db", directory.path().display())).await;
        let tree = tree.unwrap();
        shared.ping().await.unwrap();
        tree.restart("store").await.unwrap();
        shared.ping().await.unwrap();
        assert!(tree.stop().await.is_clean());
        assert!(shared.ping().await.unwrap_err().is_retryable());
    }

    #[tokio::test]
    async fn requests_whose_time_is_over_are_forgotten_on_a_beat() {
        let directory = tempfile::tempdir().unwrap();
        let shared: SharedStore = Arc::new(
            SqliteStore::new(&format!("sqlite://{}/store.db", directory.path().display()), SqliteOptions::default())
                .unwrap(),
        );
        let spec =
            SupervisorSpec::new("root", Strategy::OneForOne).child(store(shared.clone(), Duration::from_millis(20)));
        let tree = Tree::start(spec, Heartbeats::new()).await.unwrap();
        let begin = |key: &[u8]| BeginRequest {
            tenant: TenantId::new("demo").unwrap(),
            key: Fingerprint::of(&[key]),
            fingerprint: Fingerprint::of(&[]),
            effect: new_id(),
            lease_ms: 1,
            keep_ms: 1,
            held_max: 1,
        };
        assert!(matches!(shared.begin_request(begin(b"first")).await.unwrap(), BegunRequest::First(_)));
        // There is room for another as soon as the keeper has forgotten the first.
        let forgotten = async { while shared.begin_request(begin(b"second")).await.unwrap() == BegunRequest::Full {} };
        tokio::time::timeout(Duration::from_secs(20), forgotten).await.unwrap();
        tree.stop().await;
    }

    #[tokio::test]
    async fn the_keeper_passes_the_battery() {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/store.db", directory.path().display());
        let report = supervision::battery::run(|| {
            let shared = Arc::new(SqliteStore::new(&url, SqliteOptions::default()).unwrap());
            store(shared, Duration::from_secs(1))
        })
        .await;
        assert_eq!(report.skipped().count(), 2, "all but the flood and what is for tasks: {report}");
    }

    #[tokio::test]
    async fn a_store_that_another_process_holds_does_not_hold_up_the_stop() {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/store.db", directory.path().display());
        let (shared, tree) = start(&url).await;
        let tree = tree.unwrap();
        let other = sqlx::SqlitePool::connect(&url).await.unwrap();
        let held = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
        // The keeper's ping waits for the lock, as does this one, until its deadline.
        assert!(shared.ping().await.unwrap_err().is_retryable());
        let report = tree.stop().await;
        assert!(report.is_clean() && report.took < Duration::from_secs(2), "{report:?}");
        drop(held);
    }

    #[tokio::test]
    async fn a_file_that_is_no_database_fails_the_start_at_once_and_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.db");
        std::fs::write(&path, "this is a letter to my mother ".repeat(200)).unwrap();
        let (_, tree) = start(&format!("sqlite://{}", path.display())).await;
        let error = tree.err().unwrap().to_string();
        assert!(error.starts_with("store failed: "), "{error}");
    }
}
