//! OTP's test cases about strategies, see `CONFORMANCE.md`. All under OTP's own rules and without a backoff.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code outside of a test function")]

mod common;

use common::*;
use supervision::{Exit, Status, StopOutcome, Strategy, Tree};

/// The tree has given up, as OTP does it, and everything has stopped.
async fn has_ended(tree: &Tree) {
    let ended = tokio::time::timeout(SECOND, tree.ended()).await.expect("it gives up at once");
    assert_eq!(ended.exit, Exit::Shutdown);
    assert!(ended.report.children.iter().all(|child| child.outcome == StopOutcome::Stopped), "{:?}", ended.report);
}

#[tokio::test(start_paused = true)]
async fn only_the_failed_child_is_replaced_and_n_restarts_are_allowed_and_the_next_one_ends_the_supervisor() {
    let journal = Journal::default();
    let (spec, [a, b, _]) = abc(otp_root(Strategy::OneForOne, 2), &journal);
    let tree = start(spec).await;
    for expected in [2, 3] {
        tell(&b, Message::Panic).await;
        assert_eq!((incarnation(&a).await, incarnation(&b).await), (1, expected));
    }
    tell(&b, Message::Panic).await;
    has_ended(&tree).await;
    assert_eq!(journal.take_only("stop"), ["c#1", "a#1"]);
}

#[tokio::test(start_paused = true)]
async fn each_failed_attempt_counts_and_at_the_limit_the_siblings_stop_and_the_supervisor_ends() {
    let (journal, b) = (Journal::default(), address("b"));
    let spec =
        otp_root(Strategy::OneForOne, 3).child(worker("a", &journal, &address("a"))).child(hopeless("b", &journal, &b));
    let tree = start(spec).await;
    tell(&b, Message::Panic).await;
    has_ended(&tree).await;
    let expected = ["start a#1", "start b#1", "drop b#1", "fail b#2", "fail b#3", "fail b#4", "stop a#1", "drop a#1"];
    assert_eq!(journal.take(), expected);
}

#[tokio::test(start_paused = true)]
async fn the_siblings_stop_in_reverse_order_all_start_in_order_and_one_restart_is_counted() {
    let journal = Journal::default();
    let (spec, [_, b, _]) = abc(otp_root(Strategy::OneForAll, 2), &journal);
    let tree = start(spec).await;
    journal.take();
    tell(&b, Message::Panic).await;
    let expected = ["drop b#1", "stop c#1", "drop c#1", "stop a#1", "drop a#1", "start a#2", "start b#2", "start c#2"];
    assert_eq!(journal.take(), expected);
    tell(&b, Message::Panic).await;
    assert_eq!(incarnation(&b).await, 3);
    tell(&b, Message::Panic).await;
    has_ended(&tree).await;
}

#[tokio::test(start_paused = true)]
async fn a_group_whose_member_keeps_failing_stops_as_a_whole_at_the_limit() {
    let (journal, b) = (Journal::default(), address("b"));
    let spec = otp_root(Strategy::OneForAll, 3)
        .child(worker("a", &journal, &address("a")))
        .child(hopeless("b", &journal, &b))
        .child(worker("c", &journal, &address("c")));
    let tree = start(spec).await;
    tell(&b, Message::Panic).await;
    has_ended(&tree).await;
    let lines = journal.take();
    assert_eq!(lines.iter().filter(|line| line.starts_with("fail b")).count(), 3);
    assert_eq!(lines.iter().filter(|line| line.starts_with("start a")).count(), 4);
    // Nobody stood in for `c` while `b` was down.
    assert_eq!(lines.iter().filter(|line| line.starts_with("start c")).count(), 1);
    assert_eq!(lines.last().map(String::as_str), Some("drop a#4"));
}

#[tokio::test(start_paused = true)]
async fn a_group_restart_that_fails_is_retried_as_a_whole_with_the_failed_child_as_the_culprit() {
    let (journal, a) = (Journal::default(), address("a"));
    let fails_once = Manners { fails_to_start: vec![2], ..Manners::default() };
    let spec = otp_root(Strategy::OneForAll, 5)
        .child(worker("a", &journal, &a))
        .child(ill_mannered("b", &journal, &address("b"), fails_once))
        .child(worker("c", &journal, &address("c")));
    let tree = start(spec).await;
    journal.take();
    tell(&a, Message::Panic).await;
    let lines: Vec<String> = journal.take().into_iter().filter(|line| !line.starts_with("drop")).collect();
    let expected = [
        "stop c#1",
        "stop b#1",
        "start a#2",
        "fail b#2", // The first attempt, and the second.
        "stop a#2",
        "start a#3",
        "start b#3",
        "start c#2",
    ];
    assert_eq!(lines, expected);
    let (a, b) = (node(&tree, "a"), node(&tree, "b"));
    assert_eq!((a.restarts, b.restarts), (1, 1), "each was the culprit once");
    assert_eq!(b.history[0].exit, Exit::Error("cannot start".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn the_later_siblings_stop_in_reverse_order_and_then_the_failed_one_and_they_start_in_order() {
    let journal = Journal::default();
    let (spec, [a, b, c]) = abc(otp_root(Strategy::RestForOne, 3), &journal);
    let tree = start(spec.child(worker("d", &journal, &address("d")))).await;
    journal.take();
    tell(&b, Message::Panic).await;
    let expected = ["drop b#1", "stop d#1", "drop d#1", "stop c#1", "drop c#1", "start b#2", "start c#2", "start d#2"];
    assert_eq!(journal.take(), expected);
    assert_eq!(incarnation(&a).await, 1);
    tell(&c, Message::Panic).await;
    assert_eq!((incarnation(&b).await, incarnation(&c).await), (2, 3));
    tell(&c, Message::Panic).await;
    tell(&c, Message::Panic).await;
    has_ended(&tree).await;
}

#[tokio::test(start_paused = true)]
async fn a_later_child_that_keeps_failing_stops_everything_at_the_limit() {
    let (journal, c) = (Journal::default(), address("c"));
    let spec = otp_root(Strategy::RestForOne, 2)
        .child(worker("a", &journal, &address("a")))
        .child(worker("b", &journal, &address("b")))
        .child(hopeless("c", &journal, &c));
    let tree = start(spec).await;
    tell(&c, Message::Panic).await;
    has_ended(&tree).await;
    let lines = journal.take();
    assert_eq!(lines.iter().filter(|line| line.starts_with("fail c")).count(), 2);
    assert_eq!(lines[lines.len() - 4..], ["stop b#1", "drop b#1", "stop a#1", "drop a#1"]);
}

#[tokio::test(start_paused = true)]
async fn the_retry_starts_at_the_child_that_failed_and_does_not_touch_the_earlier_ones_again() {
    let (journal, a) = (Journal::default(), address("a"));
    let fails_twice = Manners { fails_to_start: vec![2, 3], ..Manners::default() };
    let spec = otp_root(Strategy::RestForOne, 5)
        .child(worker("a", &journal, &a))
        .child(ill_mannered("b", &journal, &address("b"), fails_twice))
        .child(worker("c", &journal, &address("c")));
    let tree = start(spec).await;
    tell(&a, Message::Panic).await;
    let lines = journal.take();
    let expected = [
        "drop a#1",
        "stop c#1",
        "drop c#1",
        "stop b#1",
        "drop b#1",
        "start a#2",
        "fail b#2",
        "fail b#3",
        "start b#4",
        "start c#2",
    ];
    assert_eq!(lines[3..], expected);
    assert_eq!((incarnation(&a).await, status(&tree, "c")), (2, Status::Up));
}

#[tokio::test(start_paused = true)]
async fn the_start_order_is_that_of_declaration_and_every_stop_is_the_exact_reverse_one_at_a_time() {
    let journal = Journal::default();
    let ids: Vec<String> = (0..10).map(|n| format!("c{n}")).collect();
    let children = ids.iter().map(|id| slow_to_stop(id, &journal, SECOND));
    let first = address("first");
    let spec = otp_root(Strategy::RestForOne, 1).child(worker("first", &journal, &first)).with_children(children);
    let tree = start(spec).await;
    let named = |verb: &str, incarnation: u64, ids: &[String]| -> Vec<String> {
        ids.iter().map(|id| format!("{verb} {id}#{incarnation}")).collect()
    };
    assert_eq!(journal.take()[1..], named("start", 1, &ids));
    let reverse: Vec<String> = ids.iter().rev().cloned().collect();
    // With its group, and with the tree: one is gone before the next is asked.
    let stops = |incarnation| -> Vec<String> {
        let pair = |id: &String| [format!("stop {id}#{incarnation}"), format!("drop {id}#{incarnation}")];
        reverse.iter().flat_map(pair).collect()
    };
    tell(&first, Message::Panic).await;
    tokio::time::sleep(11 * SECOND).await;
    let lines = journal.take();
    assert_eq!(lines[1..21], stops(1));
    assert_eq!(lines[22..], named("start", 2, &ids));
    assert_eq!(tree.stop().await.took.as_secs(), 10);
    assert_eq!(journal.take()[..20], stops(2));
}
