//! OTP's test cases about counts and about children that fail again and again, see `CONFORMANCE.md`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code outside of a test function")]

mod common;

use common::*;
use supervision::{
    Address, Backoff, ChildSpec, Counts, OperationError, Restart, Status, Strategy, SupervisorSpec, Tree,
};

/// Specs and active ones, and what the listing says of them.
fn agreed(tree: &Tree) -> Counts {
    let snapshot = tree.snapshot();
    let counts = snapshot.counts();
    let listed = snapshot.children.iter().filter(|child| child.status == Status::Up).count();
    assert_eq!((counts.specs, counts.active), (snapshot.children.len(), listed));
    assert_eq!(counts.specs, counts.supervisors + counts.workers);
    counts
}

#[tokio::test(start_paused = true)]
async fn counts_are_exact_and_agree_with_the_listing_at_any_time() {
    let tree = start(otp_root(DYNAMIC, 1)).await;
    let expected = |n| Counts { specs: n, active: n, supervisors: 0, workers: n };
    for n in 0..2000 {
        if n % 500 == 0 {
            assert_eq!(agreed(&tree), expected(n));
        }
        tree.add_child("", idle(format!("c{n}")).label("child").restart(Restart::Temporary)).await.unwrap();
    }
    assert_eq!(agreed(&tree), expected(2000));
    for n in 0..2000 {
        tree.kill_child(format!("c{n}").as_str()).await.unwrap();
        if n % 500 == 0 {
            settle().await;
            assert_eq!(agreed(&tree), expected(1999 - n));
        }
    }
    settle().await;
    assert_eq!(agreed(&tree), expected(0));
}

#[tokio::test(start_paused = true)]
async fn supervisors_are_counted_apart() {
    let tree = start(otp_root(DYNAMIC, 1)).await;
    for n in 0..100 {
        let below = SupervisorSpec::new(format!("s{n}"), Strategy::OneForOne).child(idle("x"));
        tree.add_child("", ChildSpec::supervisor(below).label("s").restart(Restart::Temporary)).await.unwrap();
        tree.add_child("", idle(format!("w{n}")).label("w")).await.unwrap();
    }
    assert_eq!(agreed(&tree), Counts { specs: 200, active: 200, supervisors: 100, workers: 100 });
    for n in 0..100 {
        tree.kill_child(format!("s{n}").as_str()).await.unwrap();
    }
    settle().await;
    assert_eq!(agreed(&tree), Counts { specs: 100, active: 100, supervisors: 0, workers: 100 });
}

/// Fails at once whenever it is started again; it may do so for ever.
fn looping(id: &str, journal: &Journal, address: &Address<Message>) -> ChildSpec {
    let never = Manners { fails_to_start: (2..1_000_000).collect(), ..Manners::default() };
    ill_mannered(id, journal, address, never)
}

fn endless(strategy: Strategy) -> SupervisorSpec {
    SupervisorSpec::like_otp("root", strategy).no_shared_intensity()
}

#[tokio::test(start_paused = true)]
async fn a_child_that_waits_for_a_retry_is_listed_as_waiting_and_not_as_active() {
    let (journal, [a, b]) = (Journal::default(), ["a", "b"].map(address));
    let waits = hopeless("a", &journal, &a).backoff(Backoff::default());
    let spec = root(Strategy::OneForOne).child(waits).child(worker("b", &journal, &b)).child(idle("c"));
    let tree = start(spec).await;
    assert_eq!(agreed(&tree), Counts { specs: 3, active: 3, supervisors: 0, workers: 3 });
    for _ in 0..3 {
        tell_or_wait(&a).await;
        assert!(matches!(status(&tree, "a"), Status::Waiting { .. }));
        assert_eq!(agreed(&tree), Counts { specs: 3, active: 2, supervisors: 0, workers: 3 });
        tokio::time::sleep(SECOND).await;
    }
    tree.stop_child("a").await.unwrap();
    tree.delete_child("a").await.unwrap();
    assert_eq!(agreed(&tree), Counts { specs: 2, active: 2, supervisors: 0, workers: 2 });
}

/// The first time it fails because it is told to, and then by itself.
async fn tell_or_wait(a: &Address<Message>) {
    let _ = a.try_send(Message::Panic);
    settle().await;
}

#[tokio::test(start_paused = true)]
async fn between_attempts_the_supervisor_answers_a_stop_by_hand_cancels_the_retry_and_no_stop_waits_for_it() {
    // Without a delay, as in OTP, and with one, which is a timer to be cancelled.
    for backoff in [Backoff::NONE, Backoff::default()] {
        let (journal, a) = (Journal::default(), address("a"));
        let spec = endless(Strategy::OneForOne).child(looping("a", &journal, &a).backoff(backoff)).child(idle("b"));
        let tree = start(spec).await;
        assert!(a.try_send(Message::Panic).is_ok());
        while node(&tree, "a").restarts == 0 {
            tokio::task::yield_now().await;
        }
        let began = tokio::time::Instant::now();
        assert_eq!(tree.add_child("", idle("a")).await, Err(OperationError::AlreadyPresent));
        assert_eq!(tree.start_child("a").await, Err(OperationError::Restarting));
        assert_eq!(tree.delete_child("a").await, Err(OperationError::Restarting));
        assert!(matches!(status(&tree, "a"), Status::Waiting { .. } | Status::Starting));
        assert_eq!(tree.start_child("b").await, Err(OperationError::AlreadyRunning));
        assert_eq!(tree.stop_child("a").await, Ok(()));
        assert_eq!(began.elapsed().as_millis(), 0);
        let attempts = node(&tree, "a").incarnation;
        tokio::time::sleep(600 * SECOND).await;
        assert_eq!((status(&tree, "a"), node(&tree, "a").incarnation), (Status::StoppedByHand, attempts));
        // The loop again, and the stop of the whole.
        let (journal, c) = (Journal::default(), address("c"));
        tree.add_child("", looping("c", &journal, &c).backoff(backoff)).await.unwrap();
        assert!(c.try_send(Message::Panic).is_ok());
        while node(&tree, "c").restarts == 0 {
            tokio::task::yield_now().await;
        }
        let report = tree.stop().await;
        assert!(report.is_clean() && report.took.as_millis() < 10, "{report:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_children_behind_a_retry_are_down_meanwhile_and_stay_so_when_it_is_cancelled_until_started_by_hand() {
    let (journal, b) = (Journal::default(), address("b"));
    let spec = endless(Strategy::RestForOne)
        .child(idle("a"))
        .child(looping("b", &journal, &b))
        .child(idle("c"))
        .child(idle("d"));
    let tree = start(spec).await;
    assert!(b.try_send(Message::Panic).is_ok());
    while node(&tree, "b").restarts < 3 {
        tokio::task::yield_now().await;
    }
    assert_eq!((status(&tree, "a"), node(&tree, "a").incarnation), (Status::Up, 1));
    assert_eq!(tree.start_child("b").await, Err(OperationError::Restarting));
    assert_eq!((status(&tree, "c"), status(&tree, "d")), (Status::Down, Status::Down));
    assert_eq!(tree.stop_child("b").await, Ok(()));
    tokio::time::sleep(60 * SECOND).await;
    let statuses = ["b", "c", "d"].map(|id| status(&tree, id));
    assert_eq!(statuses, [Status::StoppedByHand, Status::Down, Status::Down]);
    tree.start_child("c").await.unwrap();
    assert_eq!((status(&tree, "c"), status(&tree, "d")), (Status::Up, Status::Down));
    assert!(tree.stop().await.is_clean());
}

#[tokio::test(start_paused = true)]
async fn a_dynamic_instance_that_fails_again_and_again_is_stopped_by_its_id_and_holds_up_nothing() {
    let (journal, a) = (Journal::default(), address("a"));
    let tree = start(endless(DYNAMIC)).await;
    tree.add_child("", looping("a", &journal, &a)).await.unwrap();
    tree.add_child("", idle("b")).await.unwrap();
    assert!(a.try_send(Message::Panic).is_ok());
    while node(&tree, "a").restarts < 3 {
        tokio::task::yield_now().await;
    }
    assert_eq!(tree.add_child("", idle("a")).await, Err(OperationError::AlreadyPresent));
    assert!(matches!(status(&tree, "a"), Status::Waiting { .. } | Status::Starting));
    assert_eq!(tree.stop_child("a").await, Ok(()));
    assert!(!exists(&tree, "a"));
    assert_eq!(agreed(&tree), Counts { specs: 1, active: 1, supervisors: 0, workers: 1 });
    let report = tree.stop().await;
    assert!(report.is_clean() && report.took.as_millis() < 10, "{report:?}");
}
