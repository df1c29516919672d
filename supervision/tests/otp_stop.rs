//! OTP's test cases about stopping, see `CONFORMANCE.md`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code outside of a test function")]

mod common;

use std::time::Duration;

use common::*;
use supervision::{
    BoxError, ChildSpec, Exit, Orderly, Restart, Shutdown, StopOutcome, StopReport, Strategy, SupervisorSpec, Tree,
};

fn outcomes(report: &StopReport) -> Vec<(&str, StopOutcome)> {
    report.children.iter().map(|child| (child.path.as_str(), child.outcome.clone())).collect()
}

/// A task that ends in this way when it is asked to stop.
fn ends_with(id: &str, end: fn() -> Result<(), BoxError>) -> ChildSpec {
    ChildSpec::task(id, move |context| async move {
        context.cancelled().cancelled().await;
        end()
    })
}

/// A tree over one dynamic supervisor with these children.
async fn pool(children: Vec<ChildSpec>) -> Tree {
    let pool = SupervisorSpec::like_otp("pool", DYNAMIC);
    let tree = start(root(Strategy::OneForOne).child(ChildSpec::supervisor(pool))).await;
    for child in children {
        tree.add_child("pool", child).await.unwrap();
    }
    tree
}

#[tokio::test(start_paused = true)]
async fn an_unlimited_stop_budget_waits_as_long_as_needed() {
    let journal = Journal::default();
    let slow = |id| slow_to_stop(id, &journal, 7200 * SECOND).stop_within(Shutdown::Infinity);
    let inner = SupervisorSpec::new("inner", Strategy::OneForOne).child(slow("x"));
    let tree = start(root(Strategy::OneForOne).child(slow("a")).child(ChildSpec::supervisor(inner))).await;
    let report = tree.stop().await;
    assert!(report.children.iter().all(|child| child.outcome == StopOutcome::Stopped), "{report:?}");
    assert_eq!(report.took.as_secs(), 4 * 3600);
}

#[tokio::test(start_paused = true)]
async fn after_its_budget_a_child_is_killed_and_the_others_still_stop_cleanly() {
    let journal = Journal::default();
    let slow = slow_to_stop("b", &journal, 3600 * SECOND).stop_within(Shutdown::Within(SECOND));
    let (a, c) = (worker("a", &journal, &address("a")), worker("c", &journal, &address("c")));
    let tree = start(root(Strategy::OneForOne).child(a).child(slow).child(c)).await;
    let report = tree.stop().await;
    let expected = [("c", StopOutcome::Stopped), ("b", StopOutcome::Killed), ("a", StopOutcome::Stopped)];
    assert_eq!(outcomes(&report), expected);
    assert_eq!((report.took.as_secs(), tree.ended().await.exit), (1, Exit::Shutdown));
    assert_eq!(journal.take_only("drop"), ["c#1", "b#1", "a#1"]);
}

#[tokio::test(start_paused = true)]
async fn dynamic_children_are_asked_all_at_once_share_one_budget_and_the_rest_is_killed() {
    let journal = Journal::default();
    let budget = Shutdown::Within(4 * SECOND);
    let children = (1..=8).map(|n| slow_to_stop(&format!("c{n}"), &journal, n * SECOND).stop_within(budget));
    let tree = pool(children.collect()).await;
    let report = tree.stop().await;
    let killed: Vec<&str> = report.unclean().map(|child| child.path.as_str()).collect();
    assert_eq!(journal.take_only("stop").len() + killed.len(), 8);
    assert!(killed.contains(&"pool.c5") && killed.contains(&"pool.c8") && !killed.contains(&"pool.c3"), "{killed:?}");
    assert_eq!(report.took.as_secs(), 4);
    assert_eq!(tree.ended().await.exit, Exit::Shutdown);
}

#[tokio::test(start_paused = true)]
async fn a_child_can_be_marked_to_be_killed_at_once() {
    let journal = Journal::default();
    let brutal = slow_to_stop("b", &journal, 3600 * SECOND).stop_within(Shutdown::BrutalKill);
    let tree = start(root(Strategy::OneForOne).child(worker("a", &journal, &address("a"))).child(brutal)).await;
    let report = tree.stop().await;
    assert_eq!(outcomes(&report), [("b", StopOutcome::Stopped), ("a", StopOutcome::Stopped)]);
    assert!(report.took < Duration::from_millis(10), "took {:?}", report.took);
    // `b` was not asked: it was dropped without its `post_stop`.
    assert_eq!(journal.take()[2..], ["drop b#1", "stop a#1", "drop a#1"]);
}

#[tokio::test(start_paused = true)]
async fn dynamic_children_can_be_marked_to_be_killed_at_once() {
    let journal = Journal::default();
    let brutal = |n| slow_to_stop(&format!("c{n}"), &journal, 3600 * SECOND).stop_within(Shutdown::BrutalKill);
    let tree = pool((0..10).map(brutal).collect()).await;
    let report = tree.stop().await;
    assert!(report.is_clean() && report.took < Duration::from_millis(10), "{report:?}");
    let (stopped, dropped): (Vec<_>, Vec<_>) = {
        let lines = journal.take();
        lines.into_iter().filter(|line| !line.starts_with("start")).partition(|line| line.starts_with("stop"))
    };
    assert_eq!((stopped.len(), dropped.len()), (0, 10));
}

#[tokio::test(start_paused = true)]
async fn exits_that_arrive_during_a_stop_never_cause_a_restart_and_never_hang_the_stop() {
    for end in [Message::Panic, Message::Fail, Message::Stop, Message::End(Orderly::Shutdown)] {
        let (journal, a) = (Journal::default(), address("a"));
        let spec = root(Strategy::OneForAll)
            .child(worker("a", &journal, &a))
            .child(slow_to_stop("b", &journal, SECOND))
            .child(slow_to_stop("c", &journal, SECOND));
        let tree = start(spec).await;
        let (report, ()) = tokio::join!(tree.stop(), async {
            settle().await;
            tell(&a, end).await;
        });
        assert_eq!(report.took.as_secs(), 2);
        assert_eq!(journal.take_only("start"), ["a#1", "b#1", "c#1"]);
        assert_eq!(tree.ended().await.exit, Exit::Shutdown);
    }
}

#[tokio::test(start_paused = true)]
async fn a_bad_exit_while_stopping_is_reported_and_the_stop_goes_on_and_counts_as_one() {
    let children = [
        ends_with("normal", || Err(Orderly::Normal.into())).restart(Restart::Transient),
        ends_with("shutdown", || Ok(())),
        ends_with("reason", || Err(Orderly::ShutdownWith("done".into()).into())).restart(Restart::Transient),
        ends_with("error", || Err("no luck".into())),
        ends_with("panic", || panic!("no luck at all")),
    ];
    let tree = pool(children.into()).await;
    let report = tree.stop().await;
    let bad: Vec<_> = outcomes(&report).into_iter().filter(|(_, outcome)| *outcome != StopOutcome::Stopped).collect();
    assert_eq!(bad.len(), 2, "{bad:?}");
    assert!(bad.contains(&("pool.error", StopOutcome::Failed(Exit::Error("no luck".to_owned())))));
    assert!(bad.contains(&("pool.panic", StopOutcome::Failed(Exit::Panic("no luck at all".to_owned())))));
    assert_eq!(report.children.len(), 6);
    assert_eq!(tree.ended().await.exit, Exit::Shutdown);
}

#[tokio::test(start_paused = true)]
async fn a_permanent_child_that_ends_as_normal_when_it_is_asked_to_stop_is_reported_under_otps_rule_only() {
    for (spec, expected) in [
        (SupervisorSpec::like_otp("root", Strategy::OneForOne), StopOutcome::Failed(Exit::Normal)),
        (root(Strategy::OneForOne), StopOutcome::Stopped),
    ] {
        let tree = start(spec.child(ends_with("a", || Err(Orderly::Normal.into())))).await;
        assert_eq!(outcomes(&tree.stop().await), [("a", expected)]);
    }
}
