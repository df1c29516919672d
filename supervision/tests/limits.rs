//! Limits on what waits, and news that must not be lost on the way.
#![allow(clippy::unwrap_used, reason = "test code outside of a test function")]

mod common;

use std::time::Duration;

use common::*;
use futures_util::future::join_all;
use supervision::{
    Address, Backoff, ChildContext, ChildSpec, OnStuck, OperationError, Status, Strategy, SupervisorSpec,
};

fn one_for_one() -> SupervisorSpec {
    SupervisorSpec::new("root", Strategy::OneForOne).intensity(generous())
}

#[tokio::test(start_paused = true)]
async fn operations_that_wait_for_a_slow_child_are_limited_in_number() {
    let journal = Journal::default();
    let manners = Manners { stop_takes: 4 * SECOND, ..Manners::default() };
    let tree = start(one_for_one().child(ill_mannered("slow", &journal, &Address::new("slow"), manners))).await;
    let stopping = tree.stop_child("slow");
    let asking = async {
        settle().await;
        let mut refused = 0;
        for _ in 0..100 {
            let answers = join_all(
                (0..50)
                    .map(|_| async { tokio::time::timeout(Duration::from_millis(1), tree.start_child("slow")).await }),
            );
            refused += answers.await.iter().filter(|it| **it == Ok(Err(OperationError::Busy))).count();
        }
        refused
    };
    let (stopped, refused) = tokio::join!(stopping, asking);
    assert_eq!(stopped, Ok(()));
    assert!(refused > 3000, "only {refused} of 5000 were refused");
}

/// Promises to beat from the beginning of its start, and never does.
fn stuck_from_the_start(id: &str, start_takes: Duration) -> ChildSpec {
    ChildSpec::task(id, move |context: ChildContext| async move {
        let beat = context.heartbeat("rounds", SECOND);
        tokio::time::sleep(start_takes).await;
        context.ready();
        if context.incarnation() > 1 {
            loop {
                beat.beat();
                tokio::time::sleep(SECOND).await;
            }
        }
        std::future::pending().await
    })
    .start_when_ready()
    .backoff(Backoff::NONE)
    .on_stuck(OnStuck::Restart)
}

#[tokio::test(start_paused = true)]
async fn a_child_that_was_stuck_before_its_start_was_complete_is_found_as_soon_as_it_is_up() {
    let tree = start(one_for_one().child(stuck_from_the_start("a", 5 * SECOND))).await;
    tokio::time::sleep(30 * SECOND).await;
    assert_eq!((status(&tree, "a"), node(&tree, "a").incarnation), (Status::Up, 2));
    assert_eq!(node(&tree, "a").failures["stuck"], 1);
}

#[tokio::test(start_paused = true)]
async fn of_many_children_that_are_stuck_at_once_none_is_forgotten() {
    let many = (0..500).map(|number| stuck_from_the_start(&format!("c{number}"), Duration::ZERO));
    let inner = SupervisorSpec::new("inner", Strategy::OneForOne).intensity(generous()).with_children(many);
    let tree = start(one_for_one().child(ChildSpec::supervisor(inner))).await;
    tokio::time::sleep(60 * SECOND).await;
    let snapshot = tree.snapshot();
    let inner = snapshot.find("inner").unwrap();
    assert!(inner.children.iter().all(|child| child.status == Status::Up && child.incarnation == 2));
}
