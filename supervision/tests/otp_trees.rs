//! OTP's test cases about trees, see `CONFORMANCE.md`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code outside of a test function")]

mod common;

use common::*;
use supervision::{
    Address, Backoff, ChildSpec, Exit, Intensity, Restart, StartError, Status, Strategy, SupervisorSpec, Tree,
};

/// A supervisor that allows one restart.
fn inner(id: &str, restart: Restart, children: impl IntoIterator<Item = ChildSpec>) -> ChildSpec {
    let spec = SupervisorSpec::like_otp(id, Strategy::OneForOne).intensity(Intensity::new(1, 60 * SECOND));
    ChildSpec::supervisor(spec.with_children(children)).restart(restart).backoff(Backoff::NONE)
}

#[tokio::test(start_paused = true)]
async fn a_start_failure_deep_in_the_tree_reaches_main_as_one_error_with_the_path_of_child_ids_and_the_cause() {
    let (journal, first) = (Journal::default(), address("first"));
    let deep = inner("c", Restart::Permanent, [worker("ok", &journal, &address("ok")), failing("bad", &journal)]);
    let middle = inner("b", Restart::Permanent, [deep]);
    let spec = root(Strategy::OneForOne).child(worker("first", &journal, &first)).child(middle);
    let error = Tree::options().start(spec).await.err().unwrap();
    assert_eq!(error.to_string(), "b.c.bad failed: cannot start");
    let cause = Exit::Error("cannot start".to_owned());
    assert_eq!(error, StartError::Child { path: "b.c.bad".into(), cause });
    assert_eq!(journal.take_only("stop"), ["b.c.ok#1", "first#1"]);
}

#[tokio::test(start_paused = true)]
async fn an_inner_supervisor_that_gives_up_lets_the_outer_apply_its_strategy_and_starts_from_its_declared_children_only()
 {
    let (journal, x, y) = (Journal::default(), address("x"), address("y"));
    let left = inner("left", Restart::Permanent, [worker("x", &journal, &x)]);
    let right = inner("right", Restart::Permanent, [worker("y", &journal, &y)]);
    let spec = otp_root(Strategy::OneForAll, 5).child(left).child(right).child(inner(
        "third",
        Restart::Transient,
        [worker("z", &journal, &address("z"))],
    ));
    let tree = start(spec).await;
    tree.add_child("left", worker("added", &journal, &address("added"))).await.unwrap();
    tree.stop_child("third").await.unwrap();
    journal.take();
    // The first crash is the inner supervisor's own business.
    tell(&x, Message::Panic).await;
    assert_eq!(journal.take(), ["drop left.x#1", "start left.x#2"]);
    // At the second it gives up, and the outer restarts all subtrees, also the one that was stopped.
    tell(&x, Message::Panic).await;
    let lines: Vec<String> = journal.take().into_iter().filter(|line| !line.starts_with("drop")).collect();
    let stops = ["stop left.added#1", "stop right.y#1"];
    assert_eq!(lines, [&stops[..], &["start left.x#3", "start right.y#2", "start third.z#2"]].concat());
    assert!(!exists(&tree, "left.added"));
    assert_eq!((status(&tree, "third"), node(&tree, "right").incarnation), (Status::Up, 2));
}

/// A supervisor at `inner` with a worker that has this address.
async fn nested(journal: &Journal, desk: &Address<Message>) -> Tree {
    start(root(Strategy::OneForOne).child(inner("inner", Restart::Permanent, [worker("x", journal, desk)]))).await
}

#[tokio::test(start_paused = true)]
async fn a_restart_and_a_kill_of_the_supervisor_free_an_address_and_take_it_again_without_a_sleep() {
    let (journal, desk) = (Journal::default(), address("desk"));
    let tree = nested(&journal, &desk).await;
    for round in 2..20_u64 {
        let began = tokio::time::Instant::now();
        match round % 5 {
            0 => assert!(desk.try_send(Message::Panic).is_ok()),
            1 => tree.kill_child("inner.x").await.unwrap(),
            2 => tree.kill_child("inner").await.unwrap(),
            3 => drop(tree.restart("inner.x").await.unwrap()),
            _ => drop(tree.restart("inner").await.unwrap()),
        }
        // No time passes while only these tasks run.
        while node(&tree, "inner.x").incarnation < round || !desk.is_up() {
            tokio::task::yield_now().await;
        }
        assert_eq!((incarnation(&desk).await, began.elapsed().as_millis()), (round, 0));
        // The budget of the inner supervisor is not the subject.
        tokio::time::sleep(61 * SECOND).await;
    }
    let starts = journal.take_only("start").len();
    assert_eq!(starts, 19);
    tree.stop().await;
    // And at once for another tree.
    let tree = nested(&journal, &desk).await;
    assert_eq!(incarnation(&desk).await, 1);
    tree.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn with_real_threads_an_address_is_free_as_soon_as_its_child_is_gone() {
    let (journal, desk) = (Journal::default(), address("desk"));
    let tree = start(root(Strategy::OneForOne)).await;
    for _ in 0..200 {
        tree.add_child("", worker("x", &journal, &desk).restart(Restart::Temporary)).await.unwrap();
        tree.stop_child("x").await.unwrap();
        nested(&journal, &desk).await.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_asked_is_told_when_a_child_that_is_not_kept_is_gone_and_not_before() {
    let journal = Journal::default();
    let tree = start(root(Strategy::OneForOne)).await;
    for round in 0..200 {
        tree.add_child("", idle("stopped").restart(Restart::Temporary)).await.unwrap();
        tree.stop_child("stopped").await.unwrap();
        assert!(!exists(&tree, "stopped"), "round {round}");
        tree.add_child("", failing("failing", &journal)).await.unwrap_err();
        assert!(!exists(&tree, "failing"), "round {round}");
        tree.add_child("", declining("declining", &journal).restart(Restart::Temporary)).await.unwrap();
        assert!(!exists(&tree, "declining"), "round {round}");
    }
}
