//! A callback that keeps its thread is noticed from a thread of its own: in real time.

#![expect(clippy::disallowed_methods, reason = "blocking a thread is what this is about")]
#![expect(clippy::unwrap_used, reason = "test code outside of a test function")]

mod common;

use std::time::Duration;

use common::SECOND;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use supervision::{
    Address, ChildSpec, Heartbeats, NotYielding, Path, Strategy, SupervisorSpec, Tree, Watchdog, WatchdogSettings,
};

const MS: Duration = Duration::from_millis(1);

enum Work {
    /// Keeps its thread.
    Block(Duration),
    /// Gives it back.
    Wait(Duration),
}

struct Worker;

impl Actor for Worker {
    type Msg = Work;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Work>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Work>, work: Work, (): &mut ()) -> Result<(), ActorProcessingErr> {
        tokio::task::yield_now().await;
        match work {
            Work::Block(time) => std::thread::sleep(time),
            Work::Wait(time) => tokio::time::sleep(time).await,
        }
        Ok(())
    }
}

async fn watched(child: ChildSpec) -> (Tree, Watchdog) {
    let heartbeats = Heartbeats::new();
    let settings = WatchdogSettings { every: 10 * MS, not_yielding_after: 100 * MS };
    let watchdog = heartbeats.watch(settings).unwrap();
    let spec = SupervisorSpec::new("root", Strategy::OneForOne).child(child);
    (Tree::start(spec, heartbeats).await.unwrap(), watchdog)
}

/// What the watchdog says, looked at each millisecond until `enough`.
async fn seen(tree: &Tree, mut enough: impl FnMut(&[NotYielding]) -> bool) -> Vec<NotYielding> {
    for _ in 0..5000 {
        let found = tree.heartbeats().not_yielding();
        if enough(&found) {
            return found;
        }
        tokio::time::sleep(MS).await;
    }
    panic!("not seen within seconds: {:?}", tree.heartbeats().not_yielding());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_handler_that_blocks_its_thread_is_seen_while_it_does_and_no_longer() {
    let address = Address::new("a");
    let (tree, watchdog) = watched(ChildSpec::actor("a", &address, |_| (Worker, ()))).await;
    for _ in 0..2 {
        address.try_send(Work::Block(300 * MS)).unwrap();
        let found = seen(&tree, |found| !found.is_empty()).await;
        assert_eq!((found[0].path.clone(), found.len()), (Path::from("a"), 1));
        assert!(found[0].message_type.ends_with("::Work"), "{found:?}");
        assert!(found[0].for_ms >= 100, "{found:?}");
        seen(&tree, <[_]>::is_empty).await;
    }
    watchdog.stop();
    assert!(tree.stop().await.is_clean());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_task_that_blocks_its_thread_is_seen_also_on_a_runtime_of_its_own() {
    let blocking = || {
        ChildSpec::task("t", |context| async move {
            std::thread::sleep(300 * MS);
            context.cancelled().cancelled().await;
            Ok(())
        })
    };
    for child in [blocking(), blocking().on_own_runtime()] {
        let (tree, _watchdog) = watched(child).await;
        let found = seen(&tree, |found| !found.is_empty()).await;
        assert_eq!((&found[0].path, found[0].message_type), (&Path::from("t"), "task"));
        seen(&tree, <[_]>::is_empty).await;
        assert!(tree.stop().await.is_clean());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_supervisor_that_keeps_its_thread_is_seen_and_so_is_one_that_takes_long_to_make_its_children() {
    let address = Address::new("below");
    let worker = ChildSpec::actor("below", &address, |_| (Worker, ()));
    let sup = SupervisorSpec::new("sup", Strategy::OneForOne).child(worker);
    let (tree, _watchdog) = watched(ChildSpec::supervisor(sup)).await;
    tree.inject_block("sup", 300 * MS).await.unwrap();
    let found = seen(&tree, |found| !found.is_empty()).await;
    assert_eq!((&found[0].path, found[0].message_type, found.len()), (&Path::from("sup"), "supervisor", 1));
    seen(&tree, <[_]>::is_empty).await;

    let slow = ChildSpec::supervisor_from("slow", |_| {
        std::thread::sleep(300 * MS);
        Ok(SupervisorSpec::new("slow", Strategy::OneForOne))
    });
    let (adding, found) = tokio::join!(tree.add_child("", slow), seen(&tree, |found| !found.is_empty()));
    // It is made in the task of the one above it.
    assert_eq!((&found[0].path, found[0].message_type), (&Path::root(), "supervisor"));
    adding.unwrap();
    tree.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_handler_that_waits_for_long_is_not_meant() {
    let address = Address::new("a");
    let (tree, _watchdog) = watched(ChildSpec::actor("a", &address, |_| (Worker, ()))).await;
    address.try_send(Work::Wait(400 * MS)).unwrap();
    tokio::time::sleep(MS).await;
    while address.waiting() > 0 {
        tokio::time::sleep(MS).await;
    }
    for _ in 0..300 {
        assert_eq!(tree.heartbeats().not_yielding(), []);
        tokio::time::sleep(MS).await;
    }
    tree.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_a_watchdog_nothing_is_seen() {
    let address = Address::new("a");
    let (tree, watchdog) = watched(ChildSpec::actor("a", &address, |_| (Worker, ()))).await;
    address.try_send(Work::Block(SECOND)).unwrap();
    seen(&tree, |found| !found.is_empty()).await;
    watchdog.stop();
    assert_eq!(tree.heartbeats().not_yielding(), []);
    tree.stop().await;
}
