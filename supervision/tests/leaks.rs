//! What has leaked is never taken for stopped, by nobody, and nothing is started beside it.
#![allow(clippy::unwrap_used, reason = "test code outside of a test function")]

mod common;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    time::Duration,
};

use common::*;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use supervision::{
    Address, Backoff, ChildContext, ChildSpec, FirstStart, OnStuck, OperationError, Shutdown, Status, Strategy,
    SupervisorSpec, Tree,
};

const MOMENT: Duration = Duration::from_millis(20);

fn one_for_one() -> SupervisorSpec {
    SupervisorSpec::new("root", Strategy::OneForOne).intensity(generous())
}

/// Something that keeps its thread until it is let go.
#[derive(Clone)]
struct Stone {
    held: Arc<Mutex<mpsc::Receiver<()>>>,
    running: Arc<AtomicUsize>,
}

impl Stone {
    fn new() -> (mpsc::Sender<()>, Self) {
        let (release, held) = mpsc::channel();
        (release, Self { held: Arc::new(Mutex::new(held)), running: Arc::default() })
    }

    fn block(&self) {
        self.running.fetch_add(1, SeqCst);
        // It ends when the test lets it go, or has failed.
        let _ = self.held.lock().unwrap().recv_timeout(10 * SECOND);
        self.running.fetch_sub(1, SeqCst);
    }
}

async fn until(what: impl Fn() -> bool) {
    let wait = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(20 * SECOND, wait).await.unwrap();
}

/// A task on a thread of its own, which its first incarnation keeps.
fn blocker(stone: &Stone) -> ChildSpec {
    let stone = stone.clone();
    ChildSpec::task("blocker", move |context: ChildContext| {
        if context.incarnation() == 1 {
            stone.block();
        }
        async move {
            context.cancelled().cancelled().await;
            Ok(())
        }
    })
    .on_own_runtime()
    .stop_within(Shutdown::BrutalKill)
    .backoff(Backoff::NONE)
}

#[tokio::test]
async fn a_child_that_leaked_is_not_stopped_by_asking_a_second_time() {
    let (release, stone) = Stone::new();
    let tree = start(one_for_one().child(blocker(&stone))).await;
    until(|| stone.running.load(SeqCst) == 1).await;
    assert_eq!(tree.stop_child("blocker").await, Err(OperationError::Leaked));
    assert_eq!(tree.stop_child("blocker").await, Err(OperationError::Leaked));
    drop(release);
    until(|| status(&tree, "blocker") != Status::Leaked).await;
    assert_eq!(tree.stop_child("blocker").await, Ok(()));
    tree.stop().await;
}

#[tokio::test]
async fn a_stuck_child_that_leaked_does_not_come_back_once_an_operator_has_asked_it_to_stop() {
    let (release, stone) = Stone::new();
    let stuck = {
        let stone = stone.clone();
        ChildSpec::task("blocker", move |context| {
            let _never_beats = context.heartbeat("rounds", MOMENT);
            stone.block();
            std::future::pending()
        })
        .on_own_runtime()
        .stop_within(Shutdown::BrutalKill)
        .backoff(Backoff::NONE)
        .on_stuck(OnStuck::Restart)
    };
    let tree = start(one_for_one().child(stuck)).await;
    until(|| status(&tree, "blocker") == Status::Leaked).await;
    assert_eq!(tree.stop_child("blocker").await, Err(OperationError::Leaked));
    drop(release);
    until(|| status(&tree, "blocker") != Status::Leaked).await;
    tokio::time::sleep(10 * MOMENT).await;
    assert_eq!((status(&tree, "blocker"), node(&tree, "blocker").incarnation), (Status::StoppedByHand, 1));
    tree.stop().await;
}

/// Its own task keeps a thread; it waits for that.
fn with_a_task_that_does_not_yield(stone: &Stone) -> ChildSpec {
    let stone = stone.clone();
    ChildSpec::task("owner", move |context: ChildContext| {
        let stone = stone.clone();
        async move {
            let _never_beats = context.heartbeat("rounds", 5 * MOMENT);
            context.tasks().spawn("stone", async move { stone.block() });
            context.cancelled().cancelled().await;
            Ok(())
        }
    })
    .backoff(Backoff::NONE)
}

async fn leaked(tree: &Tree) {
    until(|| status(tree, "owner") == Status::Leaked).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stuck_child_whose_task_does_not_yield_is_not_started_beside_it() {
    let (_release, stone) = Stone::new();
    let tree = start(one_for_one().child(with_a_task_that_does_not_yield(&stone).on_stuck(OnStuck::Restart))).await;
    leaked(&tree).await;
    tokio::time::sleep(10 * MOMENT).await;
    assert_eq!((status(&tree, "owner"), node(&tree, "owner").incarnation), (Status::Leaked, 1));
    assert_eq!(stone.running.load(SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_operator_who_stops_a_child_hears_that_its_task_leaked() {
    let (_release, stone) = Stone::new();
    let tree = start(one_for_one().child(with_a_task_that_does_not_yield(&stone))).await;
    until(|| stone.running.load(SeqCst) == 1).await;
    assert_eq!(tree.stop_child("owner").await, Err(OperationError::Leaked));
    leaked(&tree).await;
}

/// What a start leaves behind.
async fn leave(stone: Stone, context: &ChildContext) -> Result<(), supervision::BoxError> {
    let running = Arc::clone(&stone.running);
    context.tasks().spawn("stone", async move { stone.block() });
    until(|| running.load(SeqCst) == 1).await;
    Err("cannot start".into())
}

struct Owner(Stone, ChildContext);

impl Actor for Owner {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        leave(self.0.clone(), &self.1).await
    }
}

async fn is_tried_once(stone: &Stone, owner: ChildSpec) {
    let owner = owner.on_first_start(FirstStart::Retry).backoff(Backoff { base: MOMENT, cap: MOMENT, ..Backoff::NONE });
    let tree = start(one_for_one().child(owner)).await;
    leaked(&tree).await;
    tokio::time::sleep(20 * MOMENT).await;
    assert_eq!((node(&tree, "owner").incarnation, stone.running.load(SeqCst)), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_task_whose_start_failed_and_left_a_task_behind_is_not_tried_again_beside_it() {
    let (_release, stone) = Stone::new();
    let of = stone.clone();
    let run = move |context: ChildContext| {
        let stone = of.clone();
        async move { leave(stone, &context).await }
    };
    is_tried_once(&stone, ChildSpec::task("owner", run).start_when_ready()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_actor_whose_start_failed_and_left_a_task_behind_is_not_tried_again_beside_it() {
    let (_release, stone) = Stone::new();
    let of = stone.clone();
    let make = move |context| (Owner(of.clone(), context), ());
    is_tried_once(&stone, ChildSpec::actor("owner", &Address::new("owner"), make)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_supervisor_whose_start_failed_and_left_a_task_behind_is_not_tried_again_beside_it() {
    let (_release, stone) = Stone::new();
    let inner = SupervisorSpec::new("owner", Strategy::OneForOne)
        .child(with_a_task_that_does_not_yield(&stone).restart(supervision::Restart::Transient))
        .child(
            ChildSpec::task("fails", |_| async {
                tokio::time::sleep(5 * MOMENT).await;
                Err("cannot start".into())
            })
            .start_when_ready(),
        );
    is_tried_once(&stone, ChildSpec::supervisor(inner)).await;
}

/// An actor whose first start keeps its thread.
struct SlowStarter(Stone);

impl Actor for SlowStarter {
    type Msg = ();
    type State = ();
    type Arguments = u64;

    async fn pre_start(&self, _: ActorRef<()>, incarnation: u64) -> Result<(), ActorProcessingErr> {
        if incarnation == 1 {
            self.0.block();
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_does_not_yield_holds_nobody_up_if_it_is_started_apart_and_is_reported_as_leaked() {
    let (release, stone) = Stone::new();
    let held = stone.clone();
    let spec = ChildSpec::actor("slow", &Address::new("slow"), move |context| {
        (SlowStarter(held.clone()), context.incarnation())
    })
    .start_apart()
    .start_within(MOMENT)
    .on_first_start(FirstStart::Retry)
    .backoff(Backoff { base: MOMENT, cap: MOMENT, ..Backoff::default() });
    let (journal, b) = (Journal::default(), address("b"));
    let tree = start(one_for_one().child(spec).child(worker("b", &journal, &b))).await;
    assert_eq!((status(&tree, "slow"), incarnation(&b).await), (Status::Leaked, 1));
    drop(release);
    until(|| status(&tree, "slow") == Status::Up).await;
    assert_eq!(stone.running.load(SeqCst), 0);
    tree.stop().await;
}
