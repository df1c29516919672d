//! Who is started again, when, and when enough is enough.

mod common;

use std::time::Duration;

use common::*;
use supervision::{
    AutoShutdown, Backoff, ChildSpec, Exit, Intensity, OnGiveUp, Restart, Status, StopOutcome, Strategy, SupervisorSpec,
};

fn three(strategy: Strategy, journal: &Journal) -> (SupervisorSpec, [supervision::Address<Message>; 3]) {
    let addresses = [address("a"), address("b"), address("c")];
    let spec = SupervisorSpec::new("root", strategy)
        .intensity(generous())
        .child(worker("a", journal, &addresses[0]))
        .child(worker("b", journal, &addresses[1]))
        .child(worker("c", journal, &addresses[2]));
    (spec, addresses)
}

#[tokio::test(start_paused = true)]
async fn one_for_one_replaces_the_failed_child_only() {
    let journal = Journal::default();
    let (spec, [a, b, c]) = three(Strategy::OneForOne, &journal);
    let tree = start(spec).await;
    journal.take();
    b.try_send(Message::Panic).unwrap();
    settle().await;
    assert_eq!(journal.take(), ["drop b#1", "start b#2"]);
    assert_eq!([incarnation(&a).await, incarnation(&b).await, incarnation(&c).await], [1, 2, 1]);
    tree.stop().await;
}

#[tokio::test(start_paused = true)]
async fn rest_for_one_stops_the_later_ones_in_reverse_and_starts_them_in_order() {
    let journal = Journal::default();
    let (spec, [a, b, _]) = three(Strategy::RestForOne, &journal);
    let tree = start(spec).await;
    journal.take();
    b.try_send(Message::Fail).unwrap();
    settle().await;
    assert_eq!(journal.take(), ["drop b#1", "stop c#1", "drop c#1", "start b#2", "start c#2"]);
    assert_eq!(incarnation(&a).await, 1);
    tree.stop().await;
}

#[tokio::test(start_paused = true)]
async fn one_for_all_stops_all_in_reverse_and_starts_all_in_order() {
    let journal = Journal::default();
    let (spec, [_, b, _]) = three(Strategy::OneForAll, &journal);
    let tree = start(spec).await;
    journal.take();
    b.try_send(Message::Panic).unwrap();
    settle().await;
    let expected = ["drop b#1", "stop c#1", "drop c#1", "stop a#1", "drop a#1", "start a#2", "start b#2", "start c#2"];
    assert_eq!(journal.take(), expected);
    tree.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_stopped_by_hand_is_not_started_with_its_group() {
    let journal = Journal::default();
    let (spec, [a, ..]) = three(Strategy::OneForAll, &journal);
    let tree = start(spec).await;
    tree.stop_child("c").await.unwrap();
    journal.take();
    a.try_send(Message::Panic).unwrap();
    settle().await;
    assert_eq!(journal.take_only("start"), ["a#2", "b#2"]);
    assert_eq!(status(&tree, "c"), Status::StoppedByHand);
    tree.start_child("c").await.unwrap();
    assert_eq!(journal.take_only("start"), ["c#2"]);
}

#[tokio::test(start_paused = true)]
async fn permanent_comes_back_always_transient_after_a_failure_temporary_never() {
    for (restart, after_stop, after_panic) in [
        (Restart::Permanent, Some(Status::Up), Some(Status::Up)),
        (Restart::Transient, Some(Status::Finished), Some(Status::Up)),
        (Restart::Temporary, None, None),
    ] {
        for (message, expected) in [(Message::Stop, after_stop), (Message::Panic, after_panic)] {
            let (journal, a) = (Journal::default(), address("a"));
            let spec = SupervisorSpec::new("root", Strategy::OneForOne)
                .intensity(generous())
                .child(worker("a", &journal, &a).restart(restart));
            let tree = start(spec).await;
            a.try_send(message).unwrap();
            settle().await;
            assert_eq!(tree.snapshot().find("a").map(|node| node.status), expected, "{restart:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn restarts_wait_longer_each_time_and_a_good_run_forgets_them() {
    let (journal, a) = (Journal::default(), address("a"));
    let backoff = Backoff { jitter: 0.0, ..Backoff::default() };
    let spec = SupervisorSpec::new("root", Strategy::OneForOne)
        .intensity(generous())
        .child(worker("a", &journal, &a).backoff(backoff));
    let tree = start(spec).await;
    for expected in [1, 2, 4, 8] {
        a.try_send(Message::Panic).unwrap();
        settle().await;
        assert!(matches!(status(&tree, "a"), Status::Waiting { due_in_ms } if due_in_ms / 1000 == expected - 1));
        assert!(matches!(a.try_send(Message::Fail), Err(supervision::SendError::Restarting { .. })));
        tokio::time::sleep(Duration::from_secs(expected)).await;
        assert_eq!(status(&tree, "a"), Status::Up);
    }
    tokio::time::sleep(61 * SECOND).await;
    a.try_send(Message::Panic).unwrap();
    tokio::time::sleep(SECOND + Duration::from_millis(2)).await;
    assert_eq!(status(&tree, "a"), Status::Up);
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_gives_up_when_the_shared_budget_is_used_up_and_stops_the_siblings() {
    let journal = Journal::default();
    let (spec, [_, b, _]) = three(Strategy::OneForOne, &journal);
    let tree = start(spec.intensity(Intensity::new(2, 60 * SECOND))).await;
    for _ in 0..3 {
        b.try_send(Message::Panic).unwrap();
        settle().await;
    }
    let ended = tree.ended().await;
    let cause = Box::new(Exit::Panic("asked to panic".to_owned()));
    assert_eq!(ended.exit, Exit::GaveUp { path: "b".into(), cause });
    assert_eq!(journal.take_only("stop"), ["c#1", "a#1"]);
    assert!(ended.report.children.iter().all(|child| child.outcome == StopOutcome::Stopped));
}

#[tokio::test(start_paused = true)]
async fn a_nested_supervisor_that_gave_up_has_failed_and_is_restarted_even_if_transient() {
    let (journal, x) = (Journal::default(), address("x"));
    let inner = SupervisorSpec::new("inner", Strategy::OneForOne)
        .intensity(Intensity::new(0, SECOND))
        .child(worker("x", &journal, &x));
    let inner = ChildSpec::supervisor(inner).restart(Restart::Transient).backoff(Backoff::NONE);
    let tree = start(SupervisorSpec::new("root", Strategy::OneForOne).intensity(generous()).child(inner)).await;
    x.try_send(Message::Panic).unwrap();
    settle().await;
    let snapshot = tree.snapshot();
    assert_eq!(snapshot.find("inner").unwrap().incarnation, 2);
    assert_eq!(snapshot.find("inner").unwrap().failures.get("gave_up"), Some(&1));
    assert_eq!(status(&tree, "inner.x"), Status::Up);
}

#[tokio::test(start_paused = true)]
async fn a_child_that_degrades_is_tried_slowly_for_ever_and_costs_its_siblings_nothing() {
    let (journal, a, b) = (Journal::default(), address("a"), address("b"));
    let never = Manners { fails_to_start: (2..=6).collect(), ..Manners::default() };
    let spec = SupervisorSpec::new("root", Strategy::OneForOne)
        .no_shared_intensity()
        .child(
            ill_mannered("a", &journal, &a, never)
                .intensity(Intensity::new(2, 60 * SECOND))
                .on_give_up(OnGiveUp::Degrade { retry: 300 * SECOND }),
        )
        .child(worker("b", &journal, &b));
    let tree = start(spec).await;
    a.try_send(Message::Panic).unwrap();
    settle().await;
    let node = tree.snapshot().find("a").unwrap().clone();
    assert!(node.degraded);
    assert!(matches!(node.status, Status::Waiting { due_in_ms } if (150_000..=300_000).contains(&due_in_ms)));
    tokio::time::sleep(3600 * SECOND).await;
    let node = tree.snapshot().find("a").unwrap().clone();
    assert_eq!((node.status, node.incarnation, node.degraded), (Status::Up, 7, false));
    assert_eq!(incarnation(&b).await, 1);
}

#[tokio::test(start_paused = true)]
async fn no_incarnation_starts_before_the_state_of_the_one_before_it_is_dropped() {
    let (journal, a) = (Journal::default(), address("a"));
    let spec = SupervisorSpec::new("root", Strategy::OneForOne).intensity(generous()).child(worker("a", &journal, &a));
    let tree = start(spec).await;
    for round in 1..=50u64 {
        match round % 3 {
            0 => drop(a.try_send(Message::Panic)),
            1 => drop(a.try_send(Message::Fail)),
            _ => drop(tree.restart("a").await.unwrap()),
        }
        settle().await;
    }
    let events: Vec<String> = journal.take().into_iter().filter(|line| !line.starts_with("stop")).collect();
    for (index, pair) in events.chunks(2).enumerate() {
        assert_eq!(pair[0], format!("start a#{}", index + 1));
        if let Some(dropped) = pair.get(1) {
            assert_eq!(dropped, &format!("drop a#{}", index + 1));
        }
    }
    assert_eq!(events.len(), 101);
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_drop_of_the_state_is_the_childs_failure_and_not_the_supervisors() {
    let (journal, a) = (Journal::default(), address("a"));
    let manners = Manners { panics_in_drop: true, ..Manners::default() };
    let spec = SupervisorSpec::new("root", Strategy::OneForOne)
        .intensity(generous())
        .child(ill_mannered("a", &journal, &a, manners));
    let tree = start(spec).await;
    a.try_send(Message::Panic).unwrap();
    settle().await;
    assert_eq!(incarnation(&a).await, 2);
    assert_eq!(tree.snapshot().incarnation, 1);
}

#[tokio::test(start_paused = true)]
async fn the_last_significant_child_that_ends_for_good_ends_its_supervisor() {
    let (journal, a, b) = (Journal::default(), address("a"), address("b"));
    let significant = |id, address| worker(id, &journal, address).restart(Restart::Transient).significant();
    let spec = SupervisorSpec::new("root", Strategy::OneForOne)
        .intensity(generous())
        .auto_shutdown(AutoShutdown::AllSignificant)
        .child(significant("a", &a))
        .child(significant("b", &b))
        .child(worker("c", &journal, &address("c")));
    let tree = start(spec).await;
    a.try_send(Message::Stop).unwrap();
    settle().await;
    assert_eq!(status(&tree, "a"), Status::Finished);
    b.try_send(Message::Panic).unwrap();
    settle().await;
    assert_eq!(incarnation(&b).await, 2);
    b.try_send(Message::Stop).unwrap();
    assert_eq!(tree.ended().await.exit, Exit::Shutdown);
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_panics_stops_its_children_in_order_and_is_restarted() {
    let (journal, x) = (Journal::default(), address("x"));
    let inner = SupervisorSpec::new("inner", Strategy::OneForOne).child(worker("x", &journal, &x)).child(worker(
        "y",
        &journal,
        &address("y"),
    ));
    let inner = ChildSpec::supervisor(inner).backoff(Backoff::NONE);
    let tree = start(SupervisorSpec::new("root", Strategy::OneForOne).intensity(generous()).child(inner)).await;
    journal.take();
    tree.inject_panic("inner").await.unwrap();
    settle().await;
    let events: Vec<String> = journal.take().into_iter().filter(|line| !line.starts_with("drop")).collect();
    // What is known of its declared children outlives a supervisor.
    assert_eq!(events, ["stop inner.y#1", "stop inner.x#1", "start inner.x#2", "start inner.y#2"]);
    assert_eq!(tree.snapshot().find("inner").unwrap().failures.get("panic"), Some(&1));
    assert_eq!(incarnation(&x).await, 2);
}
