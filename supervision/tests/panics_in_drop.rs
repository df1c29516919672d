//! Destructors that panic at the worst moment: when what they belong to is dropped half-way.
#![allow(clippy::unwrap_used, reason = "test code outside of a test function")]

mod common;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use common::{SECOND, settle, start};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use supervision::{Address, Backoff, BeatState, ChildContext, ChildSpec, Status, Strategy, SupervisorSpec, Tree};

/// Panics when it is dropped.
struct Brittle;

impl Drop for Brittle {
    fn drop(&mut self) {
        panic!("brittle");
    }
}

/// Counts helpers that live.
#[derive(Clone, Default)]
struct Helpers(Arc<AtomicUsize>);

impl Helpers {
    fn spawn(&self, context: &ChildContext) {
        let own = Counted::new(self);
        context.tasks().spawn("helper", async move {
            let _own = own;
            std::future::pending().await
        });
    }

    fn alive(&self) -> usize {
        self.0.load(SeqCst)
    }
}

struct Counted(Helpers);

impl Counted {
    fn new(of: &Helpers) -> Self {
        of.0.fetch_add(1, SeqCst);
        Self(of.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, SeqCst);
    }
}

fn brittle_task(helpers: &Helpers) -> ChildSpec {
    let helpers = helpers.clone();
    ChildSpec::task("a", move |context| {
        let helpers = helpers.clone();
        async move {
            let _heartbeat = context.heartbeat("rounds", SECOND);
            helpers.spawn(&context);
            let _brittle = Brittle;
            std::future::pending().await
        }
    })
    .backoff(Backoff::NONE)
}

struct SlowStarter(ChildContext, Helpers);

impl Actor for SlowStarter {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        if self.0.incarnation() == 1 {
            return Ok(());
        }
        let _heartbeat = self.0.heartbeat("rounds", SECOND);
        self.1.spawn(&self.0);
        let _brittle = Brittle;
        std::future::pending().await
    }
}

async fn tree_of(child: ChildSpec) -> Tree {
    telemetry::panic::install_hook();
    start(SupervisorSpec::new("root", Strategy::OneForOne).no_shared_intensity().child(child)).await
}

fn beats(tree: &Tree) -> Vec<BeatState> {
    tree.heartbeats().snapshot().into_iter().map(|beat| beat.state).collect()
}

#[tokio::test(start_paused = true)]
async fn a_killed_task_whose_future_panics_when_dropped_takes_its_own_tasks_and_beats_with_it() {
    let helpers = Helpers::default();
    let tree = tree_of(brittle_task(&helpers)).await;
    settle().await;
    assert_eq!(helpers.alive(), 1);
    tree.kill_child("a").await.unwrap();
    tokio::time::sleep(SECOND).await;
    assert_eq!((tree.snapshot().find("a").unwrap().incarnation, helpers.alive()), (2, 1));
    assert_eq!(tree.snapshot().find("a").unwrap().failures.get("panic"), Some(&1));
    tree.stop_child("a").await.unwrap();
    assert_eq!(helpers.alive(), 0);
    assert_eq!(beats(&tree), []);
    let told = telemetry::incidents::recent(100);
    assert!(told.iter().any(|it| it.message == "brittle" && it.kind == "panic" && it.actor == "a"));
}

#[tokio::test(start_paused = true)]
async fn so_does_one_that_is_killed_at_the_end_of_the_tree() {
    let helpers = Helpers::default();
    let tree = tree_of(brittle_task(&helpers)).await;
    settle().await;
    tree.stop().await;
    assert_eq!((helpers.alive(), beats(&tree)), (0, vec![BeatState::Waiting]));
}

#[tokio::test(start_paused = true)]
async fn so_does_an_actor_whose_start_is_given_up() {
    let (helpers, address) = (Helpers::default(), Address::new("a"));
    let made = helpers.clone();
    let spec = ChildSpec::actor("a", &address, move |context| (SlowStarter(context, made.clone()), ()));
    let tree = tree_of(spec.backoff(Backoff::NONE)).await;
    tree.kill_child("a").await.unwrap();
    settle().await;
    assert_eq!((tree.snapshot().find("a").unwrap().status, helpers.alive()), (Status::Starting, 1));
    tree.stop().await;
    assert_eq!((helpers.alive(), beats(&tree)), (0, vec![BeatState::Waiting]));
}
