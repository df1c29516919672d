//! Where two things happen at once: operations, failures, stops and deadlines that meet.

mod common;

use std::time::Duration;

use common::*;
use supervision::{
    Backoff, ChildSpec, Heartbeats, Intensity, OnGiveUp, OperationError, Restart, Shutdown, StartOutcome, Status,
    StopOutcome, Strategy, SupervisorSpec, Tree,
};

fn slow_stop(takes: Duration) -> Manners {
    Manners { stop_takes: takes, ..Manners::default() }
}

fn group(strategy: Strategy) -> SupervisorSpec {
    SupervisorSpec::new("root", strategy).intensity(generous())
}

/// A supervisor that has 2 s to stop, over one worker that would take 50 s.
fn slow_below(journal: &Journal, address: &supervision::Address<Message>) -> ChildSpec {
    let slow = ill_mannered("x", journal, address, slow_stop(50 * SECOND)).stop_within(Shutdown::Within(60 * SECOND));
    let inner = SupervisorSpec::new("inner", Strategy::OneForOne).intensity(Intensity::new(0, SECOND)).child(slow);
    ChildSpec::supervisor(inner).stop_within(Shutdown::Within(2 * SECOND)).backoff(Backoff::NONE)
}

#[tokio::test(start_paused = true)]
async fn two_operations_on_one_child_are_carried_out_one_after_the_other() {
    let (journal, a) = (Journal::default(), address("a"));
    let tree = start(group(Strategy::OneForOne).child(ill_mannered("a", &journal, &a, slow_stop(SECOND)))).await;
    assert!(matches!(tokio::join!(tree.restart("a"), tree.restart("a")), (Ok(_), Ok(_))));
    assert_eq!(incarnation(&a).await, 3);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_child_is_not_started_by_hand_but_its_restart_can_be_brought_about_now() {
    let (journal, a) = (Journal::default(), address("a"));
    let tree = start(group(Strategy::OneForOne).child(worker("a", &journal, &a).backoff(Backoff::default()))).await;
    a.try_send(Message::Panic).unwrap();
    settle().await;
    assert_eq!(tree.start_child("a").await, Err(OperationError::Restarting));
    assert_eq!(tree.delete_child("a").await, Err(OperationError::Restarting));
    let restarted = tree.restart("a").await.unwrap();
    assert!(matches!(restarted, StartOutcome::Started { incarnation: 2, .. }), "{restarted:?}");
    assert_eq!(status(&tree, "a"), Status::Up);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_crashes_while_its_group_is_stopped_is_started_once_and_stopped_with_the_tree() {
    let (journal, a, b) = (Journal::default(), address("a"), address("b"));
    let spec = group(Strategy::OneForAll)
        .child(worker("a", &journal, &a))
        .child(worker("b", &journal, &b))
        .child(ill_mannered("c", &journal, &address("c"), slow_stop(SECOND)));
    let tree = start(spec).await;
    a.try_send(Message::Panic).unwrap();
    settle().await;
    b.try_send(Message::Panic).unwrap();
    tokio::time::sleep(3 * SECOND).await;
    journal.take();
    tree.stop().await;
    assert_eq!(journal.take_only("drop"), ["c#2", "b#2", "a#2"]);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_reaches_a_child_that_is_already_stopping() {
    let (journal, x) = (Journal::default(), address("x"));
    let tree = start(group(Strategy::OneForOne).child(slow_below(&journal, &x))).await;
    let (_, report) = tokio::join!(tree.stop_child("inner.x"), async {
        tokio::time::sleep(SECOND).await;
        tree.stop().await
    });
    assert!(report.took < 4 * SECOND, "took {:?}", report.took);
    assert!(report.children.iter().all(|child| child.outcome != StopOutcome::Leaked), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_reaches_a_supervisor_that_is_ending_by_itself() {
    for panics in [false, true] {
        let (journal, x, y) = (Journal::default(), address("x"), address("y"));
        let slow = ill_mannered("x", &journal, &x, slow_stop(50 * SECOND)).stop_within(Shutdown::Within(60 * SECOND));
        let inner = SupervisorSpec::new("inner", Strategy::OneForOne)
            .intensity(Intensity::new(0, SECOND))
            .child(slow)
            .child(worker("y", &journal, &y));
        let inner = ChildSpec::supervisor(inner).stop_within(Shutdown::Within(2 * SECOND));
        let tree = start(group(Strategy::OneForOne).child(inner)).await;
        match panics {
            true => tree.inject_panic("inner").await.unwrap(),
            false => y.try_send(Message::Panic).unwrap(),
        }
        settle().await;
        let report = tree.stop().await;
        assert!(report.took < 4 * SECOND, "took {:?}", report.took);
        assert!(!x.is_up());
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_supervisor_had_started_when_its_start_was_called_off_is_in_the_report() {
    let (journal, x) = (Journal::default(), address("x"));
    let tree = start(group(Strategy::OneForOne)).await;
    let slow = Manners { start_takes: 9 * SECOND, ..Manners::default() };
    let inner = SupervisorSpec::new("inner", Strategy::OneForOne)
        .child(ill_mannered("x", &journal, &x, slow_stop(30 * SECOND)))
        .child(ill_mannered("y", &journal, &address("y"), slow));
    let (_, report) = tokio::join!(tree.add_child("", ChildSpec::supervisor(inner)), async {
        tokio::time::sleep(SECOND).await;
        tree.stop().await
    });
    let killed = report.children.iter().find(|child| child.path.as_str() == "inner.x").map(|child| &child.outcome);
    assert_eq!(killed, Some(&StopOutcome::Killed), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_start_that_is_dropped_half_way_stops_what_has_started() {
    let (journal, a) = (Journal::default(), address("a"));
    let slow = Manners { start_takes: 5 * SECOND, ..Manners::default() };
    let spec = group(Strategy::OneForOne).child(worker("a", &journal, &a)).child(ill_mannered(
        "b",
        &journal,
        &address("b"),
        slow,
    ));
    assert!(tokio::time::timeout(SECOND, Tree::start(spec, Heartbeats::new())).await.is_err());
    tokio::time::sleep(60 * SECOND).await;
    assert!(!a.is_up());
    assert_eq!(journal.take_only("drop"), ["a#1"]);
}

#[tokio::test(start_paused = true)]
async fn restarting_the_one_a_group_waits_for_brings_back_the_whole_group() {
    let (journal, a) = (Journal::default(), address("a"));
    let spec = group(Strategy::OneForAll).child(worker("a", &journal, &a).backoff(Backoff::default())).child(worker(
        "b",
        &journal,
        &address("b"),
    ));
    let tree = start(spec).await;
    a.try_send(Message::Panic).unwrap();
    settle().await;
    tree.restart("a").await.unwrap();
    tokio::time::sleep(600 * SECOND).await;
    assert_eq!((status(&tree, "a"), status(&tree, "b")), (Status::Up, Status::Up));
}

#[tokio::test(start_paused = true)]
async fn stopping_a_sibling_by_hand_while_its_group_stops_does_not_lose_the_one_that_failed() {
    let (journal, a) = (Journal::default(), address("a"));
    let spec = group(Strategy::OneForAll).child(worker("a", &journal, &a)).child(ill_mannered(
        "c",
        &journal,
        &address("c"),
        slow_stop(2 * SECOND),
    ));
    let tree = start(spec).await;
    a.try_send(Message::Panic).unwrap();
    settle().await;
    tree.stop_child("c").await.unwrap();
    tokio::time::sleep(600 * SECOND).await;
    assert_eq!((status(&tree, "a"), status(&tree, "c")), (Status::Up, Status::StoppedByHand));
}

/// `b` degrades and never comes back; `a` stands before it.
async fn group_with_a_hopeless_member(journal: &Journal, a: &supervision::Address<Message>) -> Tree {
    let b = address("b");
    let never = Manners { fails_to_start: (2..10_000).collect(), ..Manners::default() };
    let hopeless = ill_mannered("b", journal, &b, never)
        .intensity(Intensity::new(1, SECOND))
        .on_give_up(OnGiveUp::Degrade { retry: 10 * SECOND });
    let spec = SupervisorSpec::new("root", Strategy::RestForOne)
        .no_shared_intensity()
        .child(worker("a", journal, a))
        .child(hopeless);
    let tree = start(spec).await;
    assert!(b.try_send(Message::Panic).is_ok());
    settle().await;
    tree
}

#[tokio::test(start_paused = true)]
async fn a_member_that_never_comes_back_keeps_no_other_from_being_restarted() {
    let (journal, a) = (Journal::default(), address("a"));
    let _tree = group_with_a_hopeless_member(&journal, &a).await;
    a.try_send(Message::Panic).unwrap();
    tokio::time::sleep(SECOND).await;
    assert_eq!(incarnation(&a).await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_never_comes_back_keeps_no_operation_waiting() {
    let (journal, a) = (Journal::default(), address("a"));
    let tree = group_with_a_hopeless_member(&journal, &a).await;
    assert_eq!(tree.stop_child("a").await, Ok(()));
    assert_eq!(status(&tree, "a"), Status::StoppedByHand);
}

#[tokio::test(start_paused = true)]
async fn a_temporary_child_that_ends_while_its_group_stops_leaves_no_trace() {
    let (journal, a, t) = (Journal::default(), address("a"), address("t"));
    let spec = group(Strategy::OneForAll)
        .child(worker("a", &journal, &a))
        .child(worker("t", &journal, &t).restart(Restart::Temporary))
        .child(ill_mannered("c", &journal, &address("c"), slow_stop(SECOND)));
    let tree = start(spec).await;
    a.try_send(Message::Panic).unwrap();
    settle().await;
    t.try_send(Message::Panic).unwrap();
    tokio::time::sleep(3 * SECOND).await;
    assert!(tree.snapshot().find("t").is_none());
    assert_eq!(status(&tree, "a"), Status::Up);
}

#[tokio::test]
async fn a_child_is_not_started_again_while_something_below_it_still_runs() {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(Some(held));
    let deaf = ChildSpec::task("deaf", move |_| {
        let held = held.lock().unwrap().take();
        async move {
            if let Some(held) = held {
                // Blocks its thread: no kill reaches it. Ends when the test drops the sender.
                let _ = held.recv();
            }
            Ok(())
        }
    })
    .on_own_runtime()
    .stop_within(Shutdown::Within(Duration::from_millis(50)));
    let inner = SupervisorSpec::new("inner", Strategy::OneForOne).child(deaf);
    let tree = start(group(Strategy::OneForOne).child(ChildSpec::supervisor(inner))).await;
    assert!(tree.restart("inner").await.is_err());
    assert_eq!(status(&tree, "inner"), Status::Leaked);
    assert!(!tree.stop().await.is_clean());
    drop(release);
}

#[tokio::test]
async fn spawning_into_a_group_while_the_runtime_goes_away_blocks_nobody() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let dropping = std::thread::Builder::new();
    #[expect(clippy::disallowed_methods, reason = "the runtime under test goes away with this thread")]
    let _thread = dropping.spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        let group = supervision::TaskGroup::new("group");
        let spawning = group.clone();
        runtime.block_on(async {
            spawning.clone().spawn("spawner", async move {
                loop {
                    spawning.spawn("task", async {});
                    tokio::task::yield_now().await;
                }
            });
            tokio::task::yield_now().await;
        });
        drop(runtime);
        sender.send(()).unwrap();
    });
    assert_eq!(receiver.recv_timeout(Duration::from_secs(20)), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_for_a_start_gets_it_before_a_group_restart_that_falls_due_meanwhile() {
    let (journal, a, b) = (Journal::default(), address("a"), address("b"));
    let slow = Manners { start_takes: 4 * SECOND, ..Manners::default() };
    let backoff = Backoff { jitter: 0.0, ..Backoff::default() };
    let spec = group(Strategy::OneForAll)
        .child(
            ill_mannered("a", &journal, &a, Manners { fails_to_start: vec![2], ..Manners::default() }).backoff(backoff),
        )
        .child(ill_mannered("b", &journal, &b, slow));
    let tree = start(spec).await;
    a.try_send(Message::Panic).unwrap();
    tokio::time::sleep(2 * SECOND).await;
    // The group waits for the third attempt at a, which would come while b starts, and stop it.
    let started = tree.start_child("b").await;
    assert!(matches!(started, Ok(StartOutcome::Started { incarnation: 2, .. })), "{started:?}");
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!((status(&tree, "a"), status(&tree, "b")), (Status::Up, Status::Up));
}

#[tokio::test(start_paused = true)]
async fn a_temporary_child_that_is_restarted_by_hand_comes_back_even_if_it_has_just_died() {
    let (journal, a, b) = (Journal::default(), address("a"), address("b"));
    let slow = Manners { start_takes: SECOND, ..Manners::default() };
    let spec = group(Strategy::RestForOne)
        .child(worker("a", &journal, &a).restart(Restart::Temporary))
        .child(ill_mannered("b", &journal, &b, slow));
    let tree = start(spec).await;
    b.try_send(Message::Panic).unwrap();
    settle().await;
    // The supervisor is busy with b.
    tree.kill_child("a").await.unwrap();
    let restarted = tree.restart("a").await;
    if restarted.is_ok() {
        assert_eq!(incarnation(&a).await, 2);
    } else {
        assert_eq!(restarted, Err(OperationError::NotFound));
        assert_eq!(a.call(Message::Incarnation, SECOND).await, Err(supervision::CallError::Down));
    }
    assert_eq!(status(&tree, "b"), Status::Up);
}

#[tokio::test(start_paused = true)]
async fn a_child_whose_pause_is_over_does_not_wait_any_more_when_its_group_is_held_up_by_another() {
    let (journal, a, b) = (Journal::default(), address("a"), address("b"));
    let backoff = Backoff { jitter: 0.0, ..Backoff::default() };
    let fails = Manners { fails_to_start: vec![2], ..Manners::default() };
    let spec = group(Strategy::OneForAll)
        .child(ill_mannered("a", &journal, &a, fails).backoff(backoff))
        .child(worker("b", &journal, &b).backoff(backoff));
    let tree = start(spec).await;
    // It waits for a second, and then for a, which fails and makes the group wait again; that wait is called off.
    b.try_send(Message::Panic).unwrap();
    tokio::time::sleep(SECOND * 3 / 2).await;
    assert!(matches!(status(&tree, "a"), Status::Waiting { .. }));
    tree.stop_child("a").await.unwrap();
    assert_eq!((status(&tree, "a"), status(&tree, "b")), (Status::StoppedByHand, Status::Down));
    assert_eq!(b.call(Message::Incarnation, SECOND).await, Err(supervision::CallError::Down));
}

#[tokio::test(start_paused = true)]
async fn a_restart_that_falls_due_while_an_operator_stops_a_sibling_waits_for_that() {
    let (journal, a, b) = (Journal::default(), address("a"), address("b"));
    let backoff = Backoff { jitter: 0.0, ..Backoff::default() };
    let slow = Manners { start_takes: SECOND, stop_takes: 4 * SECOND, ..Manners::default() };
    let spec = group(Strategy::OneForAll)
        .child(worker("a", &journal, &a).backoff(backoff))
        .child(ill_mannered("b", &journal, &b, slow));
    let tree = start(spec).await;
    a.try_send(Message::Panic).unwrap();
    // The group has stopped after four seconds, and a waits for one more.
    tokio::time::sleep(SECOND * 9 / 2).await;
    assert!(matches!(status(&tree, "a"), Status::Waiting { .. }));
    tree.restart("b").await.unwrap();
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!((status(&tree, "a"), status(&tree, "b")), (Status::Up, Status::Up));
    let told = journal.take();
    let starts: Vec<_> = told.iter().filter(|line| line.contains("b#") && !line.starts_with("stop")).collect();
    assert_eq!(starts, ["start b#1", "drop b#1", "start b#2"]);
}

#[tokio::test(start_paused = true)]
async fn a_child_that_ends_by_itself_before_its_turn_to_stop_is_in_the_report_at_its_place() {
    let (journal, a) = (Journal::default(), address("a"));
    let slow = Manners { stop_takes: SECOND, ..Manners::default() };
    let spec = group(Strategy::OneForOne)
        .child(worker("first", &journal, &address("first")))
        .child(worker("a", &journal, &a))
        .child(ill_mannered("slow", &journal, &address("slow"), slow));
    let tree = start(spec).await;
    let stop = tree.stop();
    let crash = async {
        settle().await;
        a.try_send(Message::Panic).unwrap();
    };
    let (report, ()) = tokio::join!(stop, crash);
    let told: Vec<_> = report.children.iter().map(|child| (child.path.as_str(), child.outcome.label())).collect();
    assert_eq!(told, [("slow", "stopped"), ("a", "failed"), ("first", "stopped")]);
}

#[tokio::test(start_paused = true)]
async fn a_child_that_is_added_while_its_group_waits_is_stopped_and_started_with_it() {
    let (journal, a, b, c) = (Journal::default(), address("a"), address("b"), address("c"));
    let backoff = Backoff { jitter: 0.0, ..Backoff::default() };
    let fails = Manners { fails_to_start: vec![2], ..Manners::default() };
    let spec = group(Strategy::OneForAll)
        .child(ill_mannered("a", &journal, &a, fails).backoff(backoff))
        .child(worker("b", &journal, &b));
    let tree = start(spec).await;
    a.try_send(Message::Panic).unwrap();
    tokio::time::sleep(2 * SECOND).await;
    assert!(matches!(status(&tree, "a"), Status::Waiting { .. }));
    tree.add_child("/", worker("c", &journal, &c)).await.unwrap();
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!((incarnation(&a).await, incarnation(&b).await, incarnation(&c).await), (3, 2, 2));
}
