//! OTP's test cases about starting, see `CONFORMANCE.md`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code outside of a test function")]

mod common;

use std::sync::atomic::{AtomicU64, Ordering};

use common::*;
use supervision::{
    ChildSpec, Exit, Ignore, OperationError, Restart, StartError, StartOutcome, Status, Strategy, SupervisorSpec, Tree,
};

#[tokio::test(start_paused = true)]
async fn a_supervisor_with_no_children_starts_stays_up_and_stops_cleanly_when_told_to() {
    let tree = start(otp_root(Strategy::OneForOne, 1)).await;
    tokio::time::sleep(3600 * SECOND).await;
    assert_eq!(tree.snapshot().status, Status::Up);
    assert!(tree.stop().await.is_clean());
    assert_eq!(tree.ended().await.exit, Exit::Shutdown);
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_may_decide_at_its_start_not_to_run_and_the_starter_sees_that_it_declined_and_no_error() {
    let journal = Journal::default();
    let declines = ChildSpec::supervisor_from("inner", |_| Err(Ignore.into()));
    let tree = start(root(Strategy::OneForOne).child(declines).child(worker("b", &journal, &address("b")))).await;
    assert_eq!((status(&tree, "inner"), status(&tree, "b")), (Status::Ignored, Status::Up));
    let added = tree.add_child("", ChildSpec::supervisor_from("added", |_| Err(Ignore.into()))).await;
    assert_eq!(added, Ok(StartOutcome::Ignored));
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_is_made_at_each_start_has_the_children_of_that_start() {
    let starts = AtomicU64::new(0);
    let inner = ChildSpec::supervisor_from("inner", move |_| {
        let number = starts.fetch_add(1, Ordering::Relaxed);
        Ok(SupervisorSpec::new("any", Strategy::OneForOne).child(idle(format!("of_start_{number}"))))
    });
    let tree = start(root(Strategy::OneForOne).child(inner)).await;
    assert!(exists(&tree, "inner.of_start_0"));
    tree.restart("inner").await.unwrap();
    assert!(exists(&tree, "inner.of_start_1") && !exists(&tree, "inner.of_start_0"));
}

#[tokio::test(start_paused = true)]
async fn a_child_may_decline_to_start_and_its_spec_stays_down_and_can_be_started_by_hand() {
    let journal = Journal::default();
    let tree = start(otp_root(Strategy::OneForOne, 1).child(idle("first"))).await;
    assert_eq!(tree.add_child("", declining("a", &journal)).await, Ok(StartOutcome::Ignored));
    assert_eq!(status(&tree, "a"), Status::Ignored);
    let counts = tree.snapshot().counts();
    assert_eq!((counts.specs, counts.active), (2, 1));
    assert!(matches!(tree.start_child("a").await, Ok(StartOutcome::Started { .. })));
    assert_eq!(journal.take(), ["start a#2"]);
}

#[tokio::test(start_paused = true)]
async fn a_temporary_child_that_declines_to_start_leaves_no_trace() {
    let journal = Journal::default();
    let spec = otp_root(Strategy::OneForOne, 1).child(declining("a", &journal).restart(Restart::Temporary));
    let tree = start(spec.child(idle("b"))).await;
    let ids: Vec<String> = tree.snapshot().children.into_iter().map(|child| child.id).collect();
    assert_eq!(ids, ["b"]);
}

#[tokio::test(start_paused = true)]
async fn a_temporary_child_that_is_added_at_run_time_and_declines_leaves_no_trace() {
    let journal = Journal::default();
    let tree = start(otp_root(Strategy::OneForOne, 1)).await;
    let added = tree.add_child("", declining("a", &journal).restart(Restart::Temporary)).await;
    assert_eq!(added, Ok(StartOutcome::Ignored));
    assert_eq!(tree.snapshot().counts().specs, 0);
}

#[tokio::test(start_paused = true)]
async fn a_dynamic_instance_that_declines_is_not_listed() {
    let journal = Journal::default();
    let tree = start(otp_root(DYNAMIC, 1)).await;
    let added = tree.add_child("", declining("a", &journal).restart(Restart::Temporary)).await;
    assert_eq!(added, Ok(StartOutcome::Ignored));
    assert_eq!(tree.snapshot().counts().specs, 0);
}

#[tokio::test(start_paused = true)]
async fn a_dynamic_instance_of_any_restart_type_that_declines_is_not_listed_and_the_later_stop_is_clean() {
    let journal = Journal::default();
    let tree = start(otp_root(DYNAMIC, 1)).await;
    for restart in [Restart::Permanent, Restart::Transient, Restart::Temporary] {
        let added = tree.add_child("", declining("a", &journal).restart(restart)).await;
        assert_eq!(added, Ok(StartOutcome::Ignored), "{restart:?}");
        assert_eq!(tree.snapshot().counts().specs, 0, "{restart:?}");
    }
    assert!(tree.stop().await.is_clean());
    assert_eq!(tree.ended().await.exit, Exit::Shutdown);
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_whose_construction_fails_or_panics_reports_the_error_to_its_starter_and_leaves_nothing_running() {
    let cannot_be = |context: supervision::ChildContext| match context.path().as_str() {
        "fails" => Err("no settings".into()),
        "panics" => panic!("no settings at all"),
        _ => Ok(SupervisorSpec::new("any", Strategy::OneForOne).child(idle("a")).child(idle("a"))),
    };
    for (id, expected) in [
        ("fails", Exit::Error("no settings".to_owned())),
        ("panics", Exit::Panic("no settings at all".to_owned())),
        ("unsound", Exit::Error("the tree is not sound: child \"a\": the id is used twice".to_owned())),
    ] {
        let (journal, a) = (Journal::default(), address("a"));
        let spec = root(Strategy::OneForOne).child(worker("first", &journal, &a));
        let error = Tree::options().start(spec.child(ChildSpec::supervisor_from(id, cannot_be))).await.err();
        assert_eq!(error, Some(StartError::Child { path: id.into(), cause: expected }));
        assert!(!a.is_up());
        assert_eq!(journal.take(), ["start first#1", "stop first#1", "drop first#1"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_child_added_at_run_time_that_fails_to_start_is_an_error_and_not_kept_nor_retried_nor_counted() {
    let (journal, first) = (Journal::default(), address("first"));
    let tree = start(otp_root(Strategy::OneForOne, 1).child(worker("first", &journal, &first))).await;
    journal.take();
    for _ in 0..3 {
        let added = tree.add_child("", failing("a", &journal)).await;
        assert_eq!(added, Err(OperationError::StartFailed { exit: Exit::Error("cannot start".to_owned()) }));
        assert!(!exists(&tree, "a"));
    }
    tokio::time::sleep(SECOND).await;
    assert_eq!(journal.take(), ["fail a#1", "fail a#1", "fail a#1"]);
    // The budget of one restart is still there.
    tell(&first, Message::Panic).await;
    assert_eq!(incarnation(&first).await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_restart_by_hand_that_fails_is_an_error_and_the_child_stays_down_without_a_retry() {
    let journal = Journal::default();
    let manners = Manners { fails_to_start: vec![2], ..Manners::default() };
    let a = ill_mannered("a", &journal, &address("a"), manners);
    let tree = start(otp_root(Strategy::OneForOne, 1).child(a)).await;
    tree.stop_child("a").await.unwrap();
    let started = tree.start_child("a").await;
    assert_eq!(started, Err(OperationError::StartFailed { exit: Exit::Error("cannot start".to_owned()) }));
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!((status(&tree, "a"), node(&tree, "a").incarnation), (Status::Down, 2));
}

#[tokio::test(start_paused = true)]
async fn a_dynamic_instance_that_fails_to_start_is_an_error_and_not_kept_nor_retried_nor_counted() {
    let (journal, first) = (Journal::default(), address("first"));
    let tree = start(otp_root(DYNAMIC, 1)).await;
    tree.add_child("", worker("first", &journal, &first)).await.unwrap();
    for _ in 0..3 {
        let added = tree.add_child("", failing("a", &journal)).await;
        assert_eq!(added, Err(OperationError::StartFailed { exit: Exit::Error("cannot start".to_owned()) }));
        assert!(!exists(&tree, "a"));
    }
    tell(&first, Message::Panic).await;
    assert_eq!(incarnation(&first).await, 2);
}
