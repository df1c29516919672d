//! Ordered start, ordered stop, budgets, and the report.

mod common;

use std::time::Duration;

use common::*;
use supervision::{
    ChildSpec, Exit, Heartbeats, Ignore, Shutdown, StartError, Status, StopOutcome, Strategy, SupervisorSpec, Tree,
};

fn abc(id: &str, journal: &Journal, manners_of_b: Manners) -> SupervisorSpec {
    SupervisorSpec::new(id, Strategy::OneForOne)
        .child(worker("a", journal, &address("a")))
        .child(ill_mannered("b", journal, &address("b"), manners_of_b))
        .child(worker("c", journal, &address("c")))
}

#[tokio::test(start_paused = true)]
async fn children_start_in_order_and_stop_in_exact_reverse() {
    let journal = Journal::default();
    let tree = start(abc("root", &journal, Manners::default())).await;
    assert_eq!(journal.take(), ["start a#1", "start b#1", "start c#1"]);
    let report = tree.stop().await;
    assert_eq!(journal.take_only("stop"), ["c#1", "b#1", "a#1"]);
    let order: Vec<&str> = report.children.iter().map(|child| child.path.as_str()).collect();
    assert_eq!(order, ["c", "b", "a"]);
    assert!(report.is_clean());
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_stops_after_its_children_and_before_what_started_earlier() {
    let journal = Journal::default();
    let inner = SupervisorSpec::new("inner", Strategy::OneForOne)
        .child(worker("x", &journal, &address("x")))
        .child(worker("y", &journal, &address("y")));
    let root = SupervisorSpec::new("root", Strategy::OneForOne)
        .child(worker("a", &journal, &address("a")))
        .child(ChildSpec::supervisor(inner))
        .child(worker("z", &journal, &address("z")));
    let tree = start(root).await;
    let report = tree.stop().await;
    let order: Vec<&str> = report.children.iter().map(|child| child.path.as_str()).collect();
    assert_eq!(order, ["z", "inner.y", "inner.x", "inner", "a"]);
    assert_eq!(journal.take_only("stop"), ["z#1", "inner.y#1", "inner.x#1", "a#1"]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_first_start_undoes_the_others_in_reverse_and_names_the_whole_path() {
    let journal = Journal::default();
    let inner = abc("inner", &journal, Manners { fails_to_start: vec![1], ..Manners::default() });
    let root = SupervisorSpec::new("root", Strategy::OneForOne)
        .child(worker("first", &journal, &address("first")))
        .child(ChildSpec::supervisor(inner));
    let error = Tree::start(root, Heartbeats::new()).await.err().expect("b fails");
    let cause = Exit::Error("cannot start".to_owned());
    assert_eq!(error, StartError::Child { path: "inner.b".into(), cause });
    assert_eq!(error.to_string(), "inner.b failed: cannot start");
    let stops = journal.take_only("stop");
    assert_eq!(stops, ["inner.a#1", "first#1"]);
}

#[tokio::test(start_paused = true)]
async fn an_unsound_tree_starts_nothing() {
    let journal = Journal::default();
    let spec = abc("root", &journal, Manners::default()).child(worker("a", &journal, &address("a2")));
    let error = Tree::start(spec, Heartbeats::new()).await.err().expect("two children are called a");
    assert_eq!(error.to_string(), "the tree is not sound: child \"a\": the id is used twice");
    assert!(journal.take().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_child_that_outlives_its_stop_budget_is_killed_and_named_and_the_stop_goes_on() {
    let journal = Journal::default();
    let tree = start(abc("root", &journal, Manners { stop_takes: 60 * SECOND, ..Manners::default() })).await;
    let report = tree.stop().await;
    let unclean: Vec<_> = report.unclean().map(|child| (child.path.as_str(), child.outcome.clone())).collect();
    assert_eq!(unclean, [("b", StopOutcome::Killed)]);
    assert_eq!(report.children.len(), 3);
    assert!(report.took >= 5 * SECOND && report.took < 6 * SECOND, "took {:?}", report.took);
    // Its state was dropped all the same, before the next child was asked to stop.
    let events = journal.take();
    let at = |line: &str| events.iter().position(|event| event == line).unwrap_or_else(|| panic!("no {line}"));
    assert!(at("drop b#1") < at("stop a#1"));
}

#[tokio::test(start_paused = true)]
async fn a_stop_wins_over_a_start_in_progress() {
    let journal = Journal::default();
    let slow = Manners { start_takes: 8 * SECOND, ..Manners::default() };
    let root = SupervisorSpec::new("root", Strategy::OneForOne).child(worker("a", &journal, &address("a")));
    let tree = start(root).await;
    let adding = {
        let (tree, journal) = (tree.clone(), journal.clone());
        async move { tree.add_child("", ill_mannered("slow", &journal, &address("slow"), slow)).await }
    };
    let (added, report) = tokio::join!(adding, async {
        tokio::time::sleep(SECOND).await;
        assert_eq!(status(&tree, "slow"), Status::Starting);
        tree.stop().await
    });
    assert!(added.is_err());
    assert!(report.took < SECOND, "took {:?}", report.took);
    assert_eq!(journal.take_only("start"), ["a#1"]);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_is_called_off_stops_what_has_started() {
    let journal = Journal::default();
    let slow = Manners { start_takes: 8 * SECOND, ..Manners::default() };
    let called_off = tokio_util::sync::CancellationToken::new();
    let starting = Tree::options().cancelled_by(called_off.clone()).start(abc("root", &journal, slow));
    let (started, ()) = tokio::join!(starting, async {
        tokio::time::sleep(SECOND).await;
        called_off.cancel();
    });
    assert_eq!(started.err(), Some(StartError::Cancelled));
    assert_eq!(journal.take(), ["start a#1", "stop a#1", "drop a#1"]);
}

#[tokio::test(start_paused = true)]
async fn a_child_that_does_not_start_within_its_budget_has_failed() {
    let journal = Journal::default();
    let slow = Manners { start_takes: 60 * SECOND, ..Manners::default() };
    let spec = ill_mannered("slow", &journal, &address("slow"), slow).start_within(2 * SECOND);
    let began = tokio::time::Instant::now();
    let root = SupervisorSpec::new("root", Strategy::OneForOne).child(spec);
    let error = Tree::start(root, Heartbeats::new()).await.err().expect("too slow");
    assert_eq!(error, StartError::Child { path: "slow".into(), cause: Exit::StartTimeout });
    assert_eq!(began.elapsed().as_secs(), 2);
}

#[tokio::test(start_paused = true)]
async fn stopping_twice_waits_for_the_same_stop() {
    let journal = Journal::default();
    let tree = start(abc("root", &journal, Manners { stop_takes: SECOND, ..Manners::default() })).await;
    let (first, second) = tokio::join!(tree.stop(), tree.stop());
    assert_eq!(first.children.len(), second.children.len());
    assert_eq!(journal.take_only("stop").len(), 3);
    assert_eq!(tree.ended().await.exit, Exit::Shutdown);
}

#[tokio::test(start_paused = true)]
async fn a_task_is_started_when_it_says_that_it_is_ready() {
    let task = ChildSpec::task("listener", |context| async move {
        tokio::time::sleep(3 * SECOND).await;
        context.ready();
        context.cancelled().cancelled().await;
        Ok(())
    })
    .start_when_ready();
    let began = tokio::time::Instant::now();
    let tree = start(SupervisorSpec::new("root", Strategy::OneForOne).child(task)).await;
    assert_eq!(began.elapsed(), 3 * SECOND);
    assert_eq!(status(&tree, "listener"), Status::Up);
    assert!(tree.stop().await.is_clean());
}

#[tokio::test(start_paused = true)]
async fn a_task_that_ends_before_it_is_ready_fails_the_start_with_its_error() {
    let task = ChildSpec::task("listener", |_| async { Err("address in use".into()) }).start_when_ready();
    let spec = SupervisorSpec::new("root", Strategy::OneForOne).child(task);
    let error = Tree::start(spec, Heartbeats::new()).await.err().expect("it fails");
    assert_eq!(error.to_string(), "listener failed: address in use");
}

#[tokio::test(start_paused = true)]
async fn a_child_that_declines_to_start_stays_down_and_is_no_failure() {
    let task = ChildSpec::task("optional", |_| async { Err(Ignore.into()) }).start_when_ready();
    let tree = start(SupervisorSpec::new("root", Strategy::OneForOne).child(task)).await;
    assert_eq!(status(&tree, "optional"), Status::Ignored);
}

#[tokio::test(start_paused = true)]
async fn dynamic_children_stop_all_at_once_within_one_budget() {
    let journal = Journal::default();
    let pool = SupervisorSpec::new("pool", Strategy::Dynamic { max_children: 10 });
    let tree = start(SupervisorSpec::new("root", Strategy::OneForOne).child(ChildSpec::supervisor(pool))).await;
    for id in ["a", "b", "c", "d"] {
        let slow = Manners { stop_takes: 2 * SECOND, ..Manners::default() };
        tree.add_child("pool", ill_mannered(id, &journal, &address(id), slow)).await.expect("there is room");
    }
    let report = tree.stop().await;
    assert!(report.is_clean());
    assert_eq!(report.children.len(), 5);
    assert!(report.took < 3 * SECOND, "took {:?}", report.took);
}

#[tokio::test(start_paused = true)]
async fn a_finite_budget_of_a_supervisor_bounds_all_its_children_together() {
    let journal = Journal::default();
    let slow = || Manners { stop_takes: 4 * SECOND, ..Manners::default() };
    let inner = SupervisorSpec::new("inner", Strategy::OneForOne)
        .child(ill_mannered("x", &journal, &address("x"), slow()))
        .child(ill_mannered("y", &journal, &address("y"), slow()));
    let inner = ChildSpec::supervisor(inner).stop_within(Shutdown::Within(5 * SECOND));
    let tree = start(SupervisorSpec::new("root", Strategy::OneForOne).child(inner)).await;
    let report = tree.stop().await;
    let outcomes: Vec<_> = report.children.iter().map(|child| (child.path.as_str(), child.outcome.clone())).collect();
    let expected =
        [("inner.y", StopOutcome::Stopped), ("inner.x", StopOutcome::Killed), ("inner", StopOutcome::Stopped)];
    assert_eq!(outcomes, expected);
    assert!(report.took < 6 * SECOND, "took {:?}", report.took);
}

#[tokio::test]
async fn a_child_that_never_yields_is_reported_as_leaked_and_not_as_stopped() {
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
    let tree = start(SupervisorSpec::new("root", Strategy::OneForOne).child(deaf)).await;
    let report = tree.stop().await;
    drop(release);
    assert_eq!(report.children[0].outcome, StopOutcome::Leaked);
    assert!(!report.is_clean());
}

#[tokio::test(start_paused = true)]
async fn a_killed_supervisor_takes_no_longer_because_its_many_children_have_tasks_of_their_own() {
    let busy = |number: u32| {
        ChildSpec::task(format!("c{number}"), |context| async move {
            context.tasks().spawn("helper", std::future::pending());
            std::future::pending().await
        })
    };
    let many = SupervisorSpec::new("many", Strategy::OneForOne).with_children((0..100).map(busy));
    let many = ChildSpec::supervisor(many).stop_within(Shutdown::BrutalKill);
    let tree = start(SupervisorSpec::new("root", Strategy::OneForOne).child(many)).await;
    settle().await;
    let report = tree.stop().await;
    let leaked = report.children.iter().filter(|child| child.outcome == StopOutcome::Leaked).count();
    assert_eq!((report.children.len(), leaked), (101, 0));
}
