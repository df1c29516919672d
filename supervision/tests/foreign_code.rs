//! Foreign code that panics where nobody expects it costs its own child, and no supervisor.
#![allow(clippy::unwrap_used, reason = "test code outside of a test function")]

mod common;

use std::{fmt, time::Duration};

use common::*;
use supervision::{
    Backoff, BeatState, ChildContext, ChildSpec, Exit, OperationError, Restart, Status, Strategy, SupervisorSpec,
    TaskGroup,
};

/// Panics when it is dropped.
struct Brittle;

impl Drop for Brittle {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "brittle");
    }
}

/// Panics when it is written.
#[derive(Debug)]
struct Unspeakable;

impl fmt::Display for Unspeakable {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("unspeakable")
    }
}

impl std::error::Error for Unspeakable {}

fn one_for_one() -> SupervisorSpec {
    SupervisorSpec::new("root", Strategy::OneForOne).intensity(generous())
}

async fn serve(context: ChildContext) -> Result<(), supervision::BoxError> {
    context.cancelled().cancelled().await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_spec_that_panics_when_it_is_forgotten_costs_the_supervisor_nothing() {
    let (journal, a) = (Journal::default(), address("a"));
    let tree = start(one_for_one().child(worker("a", &journal, &a))).await;
    let brittle = Brittle;
    let spec = ChildSpec::task("b", move |context| {
        let _held = &brittle;
        serve(context)
    });
    tree.add_child("/", spec).await.unwrap();
    tree.stop_child("b").await.unwrap();
    assert_eq!(tree.delete_child("b").await, Ok(()));
    settle().await;
    assert_eq!((status(&tree, "a"), incarnation(&a).await), (Status::Up, 1));
    let twice = Brittle;
    let spec = ChildSpec::task("a", move |context| {
        let _held = &twice;
        serve(context)
    });
    assert_eq!(tree.add_child("/", spec).await, Err(OperationError::AlreadyRunning));
    settle().await;
    assert_eq!((status(&tree, "a"), incarnation(&a).await), (Status::Up, 1));
}

#[tokio::test(start_paused = true)]
async fn a_value_handed_over_to_nobody_that_panics_when_it_is_dropped_costs_the_supervisor_nothing() {
    let (journal, a) = (Journal::default(), address("a"));
    let giver = ChildSpec::task("giver", |context| async move {
        context.hand_over(Brittle);
        context.ready();
        serve(context).await
    })
    .start_when_ready();
    let tree = start(one_for_one().child(worker("a", &journal, &a)).child(giver)).await;
    tree.kill_child("giver").await.unwrap();
    tokio::time::sleep(10 * SECOND).await;
    tree.stop_child("giver").await.unwrap();
    tree.delete_child("giver").await.unwrap();
    settle().await;
    assert_eq!((status(&tree, "a"), incarnation(&a).await), (Status::Up, 1));
}

#[tokio::test(start_paused = true)]
async fn an_error_that_cannot_be_written_is_an_error_and_its_child_ends_with_all_its_tasks() {
    let (over, mut ended) = tokio::sync::mpsc::unbounded_channel::<()>();
    let spec = ChildSpec::task("a", move |context: ChildContext| {
        let over = over.clone();
        async move {
            let _beats = context.heartbeat("rounds", SECOND);
            context.tasks().spawn("helper", async move {
                let _until_dropped = over;
                std::future::pending().await
            });
            Err(Unspeakable.into())
        }
    })
    .restart(Restart::Transient)
    .backoff(Backoff { base: 60 * SECOND, cap: 60 * SECOND, ..Backoff::NONE });
    let tree = start(one_for_one().child(spec)).await;
    tokio::time::sleep(SECOND).await;
    let Exit::Error(text) = node(&tree, "a").history[0].exit.clone() else { panic!("it failed with an error") };
    assert!(text.contains("unspeakable"), "{text}");
    assert!(ended.try_recv().is_err() && tree.heartbeats().snapshot()[0].state == BeatState::Waiting);
    tree.stop().await;
    assert_eq!(ended.recv().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_promises_next_to_nothing_is_never_stale_and_harms_no_one() {
    let (journal, a) = (Journal::default(), address("a"));
    let lazy = ChildSpec::task("lazy", |context| async move {
        let beat = context.heartbeat("rounds", Duration::MAX);
        let _protected = beat.protect(Duration::from_nanos(u64::MAX));
        tokio::time::sleep(SECOND).await;
        let _again = beat.protect(Duration::from_nanos(u64::MAX));
        serve(context).await
    });
    let tree = start(one_for_one().child(worker("a", &journal, &a)).child(lazy)).await;
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!((status(&tree, "lazy"), incarnation(&a).await), (Status::Up, 1));
    assert_eq!(node(&tree, "lazy").restarts, 0);
    tree.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_group_can_be_waited_for_as_long_as_it_takes() {
    let group = TaskGroup::new("api");
    group.spawn("sleeps", tokio::time::sleep(SECOND));
    assert!(group.wait(Duration::MAX).await.is_empty());
}
