//! What OTP's supervisor lacks: stop groups, a retry at first start, stuck detection, values handed over, an observer.
#![allow(clippy::unwrap_used, reason = "test code outside of a test function")]

mod common;

use std::sync::{Arc, Mutex};

use common::{
    Journal, Manners, Message, SECOND, address, generous, ill_mannered, incarnation, settle, start, status, worker,
};
use supervision::{
    Address, Backoff, ChildSpec, EventKind, Exit, FirstStart, OnStuck, Restart, Shutdown, StartError, StartOutcome,
    Status, StopOutcome, Strategy, StuckIn, SupervisorSpec, Tree,
};

fn one_for_one() -> SupervisorSpec {
    SupervisorSpec::new("root", Strategy::OneForOne).intensity(generous())
}

fn slow_to_stop(id: &str, journal: &Journal) -> ChildSpec {
    let manners = Manners { stop_takes: 2 * SECOND, ..Manners::default() };
    ill_mannered(id, journal, &Address::new(id), manners)
}

#[tokio::test(start_paused = true)]
async fn a_stop_group_takes_as_long_as_its_slowest_member_and_the_others_stop_in_their_turn() {
    let journal = Journal::default();
    let tree = start(
        one_for_one()
            .child(slow_to_stop("a", &journal))
            .child(slow_to_stop("b", &journal).stop_group("io"))
            .child(slow_to_stop("c", &journal).stop_group("io"))
            .child(slow_to_stop("d", &journal)),
    )
    .await;
    let report = tree.stop().await;
    assert_eq!(report.took.as_secs(), 6);
    let mut stops = journal.take_only("stop");
    stops[1..3].sort();
    assert_eq!(stops, ["d#1", "b#1", "c#1", "a#1"]);
}

#[tokio::test(start_paused = true)]
async fn a_group_restart_keeps_to_the_stop_groups() {
    let (journal, a) = (Journal::default(), address("a"));
    let spec = SupervisorSpec::new("root", Strategy::OneForAll)
        .intensity(generous())
        .child(worker("a", &journal, &a))
        .child(slow_to_stop("b", &journal).stop_group("io"))
        .child(slow_to_stop("c", &journal).stop_group("io"));
    let tree = start(spec).await;
    let began = tokio::time::Instant::now();
    a.try_send(Message::Panic).unwrap();
    while status(&tree, "c") != Status::Up || incarnation_of(&tree, "c") == 1 {
        settle().await;
    }
    assert_eq!(began.elapsed().as_secs(), 2);
}

fn incarnation_of(tree: &Tree, path: &str) -> u64 {
    tree.snapshot().find(path).unwrap().incarnation
}

#[tokio::test(start_paused = true)]
async fn a_child_that_may_fail_at_first_does_not_keep_the_others_from_starting_and_is_tried_again() {
    for strategy in [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne] {
        let (journal, a, b) = (Journal::default(), address("a"), address("b"));
        let manners = Manners { fails_to_start: vec![1, 2], ..Manners::default() };
        let a_spec = ill_mannered("a", &journal, &a, manners)
            .on_first_start(FirstStart::Retry)
            .backoff(Backoff { jitter: 0.0, ..Backoff::default() });
        let spec = SupervisorSpec::new("root", strategy).intensity(generous());
        let tree = start(spec.child(a_spec).child(worker("b", &journal, &b))).await;
        assert_eq!(status(&tree, "b"), Status::Up, "{strategy:?}");
        assert!(matches!(status(&tree, "a"), Status::Waiting { .. }), "{strategy:?}");
        tokio::time::sleep(4 * SECOND).await;
        assert_eq!(incarnation(&a).await, 3);
        assert_eq!(tree.snapshot().find("a").unwrap().failures.get("error"), Some(&2));
        assert!(incarnation(&b).await >= 1);
        assert!(tree.stop().await.is_clean());
    }
}

#[tokio::test(start_paused = true)]
async fn by_default_a_child_that_fails_at_first_takes_its_supervisor_with_it() {
    let (journal, a) = (Journal::default(), address("a"));
    let manners = Manners { fails_to_start: vec![1], ..Manners::default() };
    let spec = one_for_one().child(ill_mannered("a", &journal, &a, manners));
    let Err(StartError::Child { path, cause }) = Tree::options().start(spec).await else { panic!("it started") };
    assert_eq!((path.as_str(), cause), ("a", Exit::Error("cannot start".to_owned())));
}

/// A loop that beats as long as `beats` says so, every second.
fn looping(beats: Arc<Mutex<bool>>) -> ChildSpec {
    ChildSpec::task("loop", move |context| {
        let beats = Arc::clone(&beats);
        async move {
            let heartbeat = context.heartbeat("rounds", SECOND);
            loop {
                if *beats.lock().unwrap() {
                    heartbeat.beat();
                }
                tokio::time::sleep(SECOND).await;
            }
        }
    })
    .backoff(Backoff::NONE)
    .stop_within(Shutdown::Within(SECOND))
}

#[tokio::test(start_paused = true)]
async fn a_stuck_child_is_reported_once_and_so_is_that_it_goes_on() {
    let (beats, seen) = (Arc::new(Mutex::new(true)), Journal::default());
    let observed = seen.clone();
    let tree = Tree::options()
        .observer(move |event| match &event.kind {
            EventKind::Stuck { place } => observed.write(format!("{} stuck in {place}", event.path)),
            EventKind::Unstuck => observed.write(format!("{} goes on", event.path)),
            _ => {}
        })
        .start(one_for_one().child(looping(Arc::clone(&beats))))
        .await
        .unwrap();
    tokio::time::sleep(5 * SECOND).await;
    assert_eq!(seen.take(), Vec::<String>::new());
    *beats.lock().unwrap() = false;
    tokio::time::sleep(10 * SECOND).await;
    let told = seen.take();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("loop stuck in its loop rounds, which has not beaten for 2"), "{told:?}");
    let node = tree.snapshot().find("loop").cloned().unwrap();
    assert!(matches!(node.stuck, Some(StuckIn::Loop { name: "rounds", .. })), "{:?}", node.stuck);
    assert_eq!((node.status, node.incarnation), (Status::Up, 1));
    *beats.lock().unwrap() = true;
    tokio::time::sleep(3 * SECOND).await;
    assert_eq!(seen.take(), ["loop goes on"]);
    assert_eq!(tree.snapshot().find("loop").unwrap().stuck, None);
}

#[tokio::test(start_paused = true)]
async fn a_stuck_child_is_restarted_if_its_spec_says_so_and_that_counts_as_a_failure() {
    let beats = Arc::new(Mutex::new(false));
    let tree = start(one_for_one().child(looping(Arc::clone(&beats)).on_stuck(OnStuck::Restart))).await;
    tokio::time::sleep(4 * SECOND).await;
    *beats.lock().unwrap() = true;
    tokio::time::sleep(4 * SECOND).await;
    let node = tree.snapshot().find("loop").cloned().unwrap();
    assert_eq!((node.status, node.incarnation, node.restarts), (Status::Up, 2, 1));
    assert_eq!(node.failures.get("stuck"), Some(&1));
    assert!(matches!(node.history[0].exit, Exit::Stuck(StuckIn::Loop { .. })));
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_is_stuck_in_one_message_is_killed_at_its_stop_budget_and_started_again() {
    let (journal, a) = (Journal::default(), address("a"));
    let spec = worker("a", &journal, &a)
        .message_within(3 * SECOND)
        .stop_within(Shutdown::Within(SECOND))
        .on_stuck(OnStuck::Restart);
    let tree = start(one_for_one().child(spec)).await;
    a.try_send(Message::Sleep(2 * SECOND)).unwrap();
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(incarnation(&a).await, 1);
    a.try_send(Message::Sleep(1_000_000 * SECOND)).unwrap();
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(incarnation(&a).await, 2);
    let exit = tree.snapshot().find("a").unwrap().history[0].exit.clone();
    assert!(matches!(exit, Exit::Stuck(StuckIn::Message { .. })), "{exit:?}");
}

#[tokio::test(start_paused = true)]
async fn a_child_that_is_stuck_in_protected_work_is_left_alone() {
    let spec = ChildSpec::task("worker", |context| async move {
        let heartbeat = context.heartbeat("rounds", SECOND);
        let zone = heartbeat.protect(60 * SECOND);
        tokio::time::sleep(30 * SECOND).await;
        drop(zone);
        loop {
            heartbeat.beat();
            tokio::time::sleep(SECOND).await;
        }
    })
    .on_stuck(OnStuck::Restart);
    let tree = start(one_for_one().child(spec)).await;
    tokio::time::sleep(40 * SECOND).await;
    assert_eq!(incarnation_of(&tree, "worker"), 1);
}

#[tokio::test]
async fn one_that_does_not_yield_leaks_when_it_is_stuck_and_comes_back_when_it_has_ended_after_all() {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = Mutex::new(held);
    let spec = ChildSpec::task("blocker", move |context| {
        let heartbeat = context.heartbeat("rounds", std::time::Duration::from_millis(20));
        let first = context.incarnation() == 1;
        if first {
            // Blocks the thread: no kill can end this.
            let _ = held.lock().unwrap().recv();
        }
        async move {
            loop {
                heartbeat.beat();
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        }
    })
    .on_own_runtime()
    .stop_within(Shutdown::BrutalKill)
    .backoff(Backoff::NONE)
    .on_stuck(OnStuck::Restart);
    let tree = start(one_for_one().child(spec)).await;
    let until = async |wanted: Status| {
        while status(&tree, "blocker") != wanted {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(20 * SECOND, until(Status::Leaked)).await.unwrap();
    assert_eq!(incarnation_of(&tree, "blocker"), 1);
    release.send(()).unwrap();
    tokio::time::timeout(20 * SECOND, until(Status::Up)).await.unwrap();
    assert_eq!(incarnation_of(&tree, "blocker"), 2);
    assert!(tree.stop().await.is_clean());
}

#[tokio::test(start_paused = true)]
async fn a_child_hands_a_value_to_whoever_asked_for_its_start() {
    let tree = start(one_for_one()).await;
    let spec = ChildSpec::task("server", |context| async move {
        context.hand_over(8080_u16);
        context.ready();
        context.cancelled().cancelled().await;
        Ok(())
    })
    .start_when_ready();
    let Ok(StartOutcome::Started { incarnation: 1, handed_over }) = tree.add_child("/", spec).await else {
        panic!("it did not start");
    };
    assert_eq!(handed_over.take::<u16>(), Some(8080));
}

#[tokio::test(start_paused = true)]
async fn a_child_that_is_killed_from_outside_is_restarted_and_the_kill_is_counted() {
    let (journal, a) = (Journal::default(), address("a"));
    let tree = start(one_for_one().child(worker("a", &journal, &a))).await;
    tree.kill_child("a").await.unwrap();
    settle().await;
    assert_eq!(incarnation(&a).await, 2);
    assert_eq!(journal.take(), ["start a#1", "drop a#1", "start a#2"]);
    assert_eq!(tree.snapshot().find("a").unwrap().failures.get("kill"), Some(&1));
}

#[tokio::test(start_paused = true)]
async fn an_observer_that_panics_costs_nobody_else_anything() {
    let (journal, a) = (Journal::default(), address("a"));
    let spec = one_for_one().child(worker("a", &journal, &a));
    let tree = Tree::options().observer(|_| panic!("a bad observer")).start(spec).await.unwrap();
    a.try_send(Message::Panic).unwrap();
    settle().await;
    assert_eq!(incarnation(&a).await, 2);
    assert!(tree.stop().await.is_clean());
}

#[tokio::test(start_paused = true)]
async fn members_of_a_group_that_wait_with_it_say_when_they_come_back() {
    let (journal, a, b) = (Journal::default(), address("a"), address("b"));
    let backoff = Backoff { jitter: 0.0, ..Backoff::default() };
    let spec = SupervisorSpec::new("root", Strategy::OneForAll)
        .intensity(generous())
        .child(worker("a", &journal, &a).backoff(backoff))
        .child(worker("b", &journal, &b));
    let tree = start(spec).await;
    a.try_send(Message::Panic).unwrap();
    settle().await;
    let told = b.call(Message::Incarnation, SECOND).await.unwrap_err().to_string();
    assert!(told.starts_with("the actor is restarting, retry after 99"), "{told}");
    tree.stop_child("a").await.unwrap();
    let told = b.call(Message::Incarnation, SECOND).await.unwrap_err().to_string();
    assert_eq!(told, "the actor is down");
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_deleted_while_it_waits_with_its_group_is_down_for_good() {
    let (journal, a, b) = (Journal::default(), address("a"), address("b"));
    let spec = SupervisorSpec::new("root", Strategy::OneForAll)
        .intensity(generous())
        .child(worker("a", &journal, &a).backoff(Backoff::default()))
        .child(worker("b", &journal, &b));
    let tree = start(spec).await;
    a.try_send(Message::Panic).unwrap();
    settle().await;
    tree.delete_child("b").await.unwrap();
    let told = b.call(Message::Incarnation, SECOND).await.unwrap_err().to_string();
    assert_eq!(told, "the actor is down");
}

#[tokio::test(start_paused = true)]
async fn two_members_of_a_group_that_fail_at_first_are_both_tried_again() {
    let journal = Journal::default();
    let fails = |id: &str, backoff: u32| {
        let manners = Manners { fails_to_start: vec![1], ..Manners::default() };
        let base = backoff * SECOND / 10;
        ill_mannered(id, &journal, &address(id), manners).on_first_start(FirstStart::Retry).backoff(Backoff {
            base,
            jitter: 0.0,
            ..Backoff::default()
        })
    };
    let spec = SupervisorSpec::new("root", Strategy::RestForOne)
        .intensity(generous())
        .child(fails("a", 9))
        .child(fails("b", 10))
        .child(slow_to_stop("c", &journal));
    let tree = start(spec).await;
    tokio::time::sleep(60 * SECOND).await;
    for id in ["a", "b", "c"] {
        assert_eq!(status(&tree, id), Status::Up, "{id}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_significant_child_during_the_boot_is_heard_after_it() {
    let journal = Journal::default();
    let brief = ChildSpec::task("brief", |_| async { Ok(()) }).restart(Restart::Transient).significant();
    let slow = Manners { start_takes: 5 * SECOND, ..Manners::default() };
    let spec = one_for_one().auto_shutdown(supervision::AutoShutdown::AnySignificant).child(brief).child(ill_mannered(
        "slow",
        &journal,
        &address("slow"),
        slow,
    ));
    let tree = start(spec).await;
    let ended = tree.ended().await;
    assert_eq!(ended.exit, Exit::Shutdown);
    assert_eq!(journal.take_only("stop"), ["slow#1"]);
    assert!(ended.report.children.iter().all(|child| child.outcome == StopOutcome::Stopped));
}

#[tokio::test(start_paused = true)]
async fn the_spec_in_force_can_be_read_back_with_its_defaults() {
    let (journal, a) = (Journal::default(), address("a"));
    let inner =
        ChildSpec::supervisor(SupervisorSpec::new("inner", Strategy::OneForOne).child(worker("a", &journal, &a)));
    let tree = start(one_for_one().child(inner)).await;
    let spec = tree.spec_of("inner.a").unwrap();
    assert_eq!((spec.restart, spec.shutdown), (Restart::Permanent, Shutdown::Within(5 * SECOND)));
    assert_eq!(tree.spec_of("inner").unwrap().shutdown, Shutdown::Infinity);
    assert_eq!(tree.spec_of("inner.nobody"), None);
    assert_eq!(tree.spec_of("/"), None);
}
