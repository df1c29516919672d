//! OTP's test cases about restart types, and about the window of the intensity, see `CONFORMANCE.md`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code outside of a test function")]

mod common;

use common::*;
use supervision::{Address, Orderly, Restart, Status, Strategy, Tree};

/// One worker `a` of this type.
async fn single(restart: Restart) -> (Tree, Address<Message>) {
    let (journal, a) = (Journal::default(), address("a"));
    let tree = start(otp_root(Strategy::OneForOne, 100).child(worker("a", &journal, &a).restart(restart))).await;
    (tree, a)
}

fn shutdowns() -> [Message; 2] {
    [Message::End(Orderly::Shutdown), Message::End(Orderly::ShutdownWith("done".to_owned()))]
}

#[tokio::test(start_paused = true)]
async fn a_permanent_child_is_restarted_after_a_normal_exit() {
    let (tree, a) = single(Restart::Permanent).await;
    tell(&a, Message::Stop).await;
    assert_eq!((status(&tree, "a"), incarnation(&a).await), (Status::Up, 2));
}

#[tokio::test(start_paused = true)]
async fn a_normal_exit_ends_a_transient_child_and_its_spec_is_kept_down() {
    let (tree, a) = single(Restart::Transient).await;
    tell(&a, Message::Stop).await;
    assert_eq!(status(&tree, "a"), Status::Finished);
    let counts = tree.snapshot().counts();
    assert_eq!((counts.specs, counts.active), (1, 0));
    assert_eq!(tree.spec_of("a").unwrap().restart, Restart::Transient);
}

#[tokio::test(start_paused = true)]
async fn a_temporary_child_is_gone_with_its_spec_after_a_normal_exit() {
    let (tree, a) = single(Restart::Temporary).await;
    tell(&a, Message::Stop).await;
    assert_eq!((tree.snapshot().counts().specs, tree.spec_of("a")), (0, None));
    assert_eq!(tree.snapshot().status, Status::Up);
}

#[tokio::test(start_paused = true)]
async fn a_permanent_child_is_restarted_also_after_an_orderly_shutdown_that_it_did_not_owe_to_its_supervisor() {
    let (tree, a) = single(Restart::Permanent).await;
    for (message, expected) in shutdowns().into_iter().zip([2, 3]) {
        tell(&a, message).await;
        assert_eq!((status(&tree, "a"), incarnation(&a).await), (Status::Up, expected));
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_transient_child_a_shutdown_counts_as_normal() {
    let (tree, a) = single(Restart::Transient).await;
    for message in shutdowns() {
        tell(&a, message).await;
        assert_eq!(status(&tree, "a"), Status::Finished);
        tree.start_child("a").await.unwrap();
    }
    assert_eq!(incarnation(&a).await, 3);
}

#[tokio::test(start_paused = true)]
async fn the_id_of_a_temporary_child_that_shut_down_is_free_again() {
    let (tree, a) = single(Restart::Temporary).await;
    for message in shutdowns() {
        tell(&a, message).await;
        assert!(!exists(&tree, "a"));
        let again = worker("a", &Journal::default(), &a).restart(Restart::Temporary);
        tree.add_child("", again).await.unwrap();
        assert_eq!(incarnation(&a).await, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_permanent_child_is_restarted_after_a_crash() {
    let (tree, a) = single(Restart::Permanent).await;
    for (message, expected) in [Message::Panic, Message::Fail].into_iter().zip([2, 3]) {
        tell(&a, message).await;
        assert_eq!((status(&tree, "a"), incarnation(&a).await), (Status::Up, expected));
    }
}

#[tokio::test(start_paused = true)]
async fn a_transient_child_is_restarted_after_a_crash_or_a_kill() {
    let (tree, a) = single(Restart::Transient).await;
    tell(&a, Message::Panic).await;
    assert_eq!((status(&tree, "a"), incarnation(&a).await), (Status::Up, 2));
    tree.kill_child("a").await.unwrap();
    settle().await;
    assert_eq!((status(&tree, "a"), incarnation(&a).await), (Status::Up, 3));
}

#[tokio::test(start_paused = true)]
async fn a_temporary_child_is_never_restarted() {
    for message in [Message::Panic, Message::Fail] {
        let (tree, a) = single(Restart::Temporary).await;
        tell(&a, message).await;
        tokio::time::sleep(60 * SECOND).await;
        assert!(!exists(&tree, "a") && !a.is_up());
    }
    let (tree, a) = single(Restart::Temporary).await;
    tree.kill_child("a").await.unwrap();
    tokio::time::sleep(60 * SECOND).await;
    assert!(!exists(&tree, "a") && !a.is_up());
}

#[tokio::test(start_paused = true)]
async fn a_temporary_child_that_is_taken_down_with_a_sibling_is_forgotten() {
    for strategy in [Strategy::OneForAll, Strategy::RestForOne] {
        let (journal, a) = (Journal::default(), address("a"));
        let bystander = worker("b", &journal, &address("b")).restart(Restart::Temporary);
        let tree = start(otp_root(strategy, 1).child(worker("a", &journal, &a)).child(bystander)).await;
        tell(&a, Message::Panic).await;
        assert_eq!((status(&tree, "a"), exists(&tree, "b")), (Status::Up, false), "{strategy:?}");
        assert_eq!(journal.take_only("start"), ["a#1", "b#1", "a#2"], "{strategy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn restarts_older_than_the_window_do_not_count() {
    let (journal, a) = (Journal::default(), address("a"));
    let once_a_second = supervision::Intensity::new(1, SECOND);
    for limit in [once_a_second, once_a_second.in_whole_seconds()] {
        let tree = start(root(Strategy::OneForOne).intensity(limit).child(worker("a", &journal, &a))).await;
        for expected in 2..=5 {
            tell(&a, Message::Panic).await;
            assert_eq!(incarnation(&a).await, expected);
            tokio::time::sleep(SECOND * 21 / 10).await;
        }
        tree.stop().await;
    }
}
