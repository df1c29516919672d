//! OTP's test cases about the strategy simple_one_for_one, see `CONFORMANCE.md`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code outside of a test function")]

mod common;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use common::*;
use supervision::{Address, ChildSpec, Exit, Restart, Shutdown, StartOutcome, StopOutcome, SupervisorSpec, Tree};

/// Workers of these ids, added to a dynamic root under OTP's rules.
async fn pool<const N: usize>(restarts: u32, ids: [&str; N], journal: &Journal) -> (Tree, [Address<Message>; N]) {
    let tree = start(otp_root(DYNAMIC, restarts)).await;
    let addresses = ids.map(address);
    for (id, address) in ids.iter().zip(&addresses) {
        tree.add_child("", worker(id, journal, address)).await.unwrap();
    }
    (tree, addresses)
}

#[tokio::test(start_paused = true)]
async fn dynamic_instances_restart_one_by_one_and_share_one_limit() {
    let journal = Journal::default();
    let (tree, [a, b, c]) = pool(2, ["a", "b", "c"], &journal).await;
    tell(&a, Message::Panic).await;
    tell(&b, Message::Panic).await;
    assert_eq!([incarnation(&a).await, incarnation(&b).await, incarnation(&c).await], [2, 2, 1]);
    tell(&c, Message::Panic).await;
    assert_eq!(tree.ended().await.exit, Exit::Shutdown);
    let mut stops = journal.take_only("stop");
    stops.sort();
    assert_eq!(stops, ["a#2", "b#2"]);
}

#[tokio::test(start_paused = true)]
async fn the_stop_of_dynamic_children_takes_as_long_as_the_slowest_and_at_most_the_budget() {
    for (slowest, expected) in [(3, 3), (3600, 5)] {
        let journal = Journal::default();
        let inner = ChildSpec::supervisor(SupervisorSpec::like_otp("pool", DYNAMIC));
        let tree = start(root(supervision::Strategy::OneForOne).child(inner)).await;
        for (id, takes) in [("a", 1), ("b", slowest), ("c", 2), ("d", slowest)] {
            let slow = slow_to_stop(id, &journal, takes * SECOND).stop_within(Shutdown::Within(5 * SECOND));
            tree.add_child("pool", slow).await.unwrap();
        }
        let report = tree.stop().await;
        assert_eq!(report.took.as_secs(), expected);
        let killed = report.children.iter().filter(|child| child.outcome == StopOutcome::Killed).count();
        assert_eq!(killed, if slowest > 5 { 2 } else { 0 });
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_uses_the_arguments_of_the_original_start_and_what_it_hands_over_is_dropped() {
    let journal = Journal::default();
    let dropped = Arc::new(AtomicU64::new(0));
    struct Value(Arc<AtomicU64>);
    impl Drop for Value {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let (argument, lines, values) = ("seven".to_owned(), journal.clone(), Arc::clone(&dropped));
    let spec = ChildSpec::task("a", move |context| {
        lines.write(format!("{argument}#{}", context.incarnation()));
        context.hand_over(Value(Arc::clone(&values)));
        async move {
            context.ready();
            tokio::time::sleep(SECOND).await;
            Err("over".into())
        }
    });
    let tree = start(otp_root(DYNAMIC, 5)).await;
    let added = tree.add_child("", spec.start_when_ready().backoff(supervision::Backoff::NONE)).await;
    let Ok(StartOutcome::Started { handed_over, .. }) = added else { panic!("it did not start") };
    let first = handed_over.take::<Value>();
    tokio::time::sleep(SECOND * 25 / 10).await;
    assert_eq!(journal.take(), ["seven#1", "seven#2", "seven#3"]);
    tree.stop().await;
    assert_eq!(dropped.load(Ordering::Relaxed), 2);
    drop(first);
    assert_eq!(dropped.load(Ordering::Relaxed), 3);
}

#[tokio::test(start_paused = true)]
async fn a_dynamic_instance_that_keeps_failing_ends_its_supervisor_with_all() {
    let journal = Journal::default();
    let (tree, _) = pool(3, ["a", "b"], &journal).await;
    let c = address("c");
    tree.add_child("", hopeless("c", &journal, &c)).await.unwrap();
    tell(&c, Message::Panic).await;
    assert_eq!(tree.ended().await.exit, Exit::Shutdown);
    let lines = journal.take();
    assert_eq!(lines.iter().filter(|line| line.starts_with("fail c")).count(), 3);
    assert_eq!(lines.iter().filter(|line| line.starts_with("stop")).count(), 2);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_kept_of_temporary_instances_over_many_spawns() {
    let tree = start(otp_root(DYNAMIC, 1)).await;
    let argument = Arc::new(());
    for n in 0..10_000 {
        let held = Arc::clone(&argument);
        let spec = ChildSpec::task(format!("c{}", n % 100), move |_| {
            let held = Arc::clone(&held);
            async move {
                drop(held);
                Ok(())
            }
        });
        tree.add_child("", spec.label("job").restart(Restart::Temporary)).await.unwrap();
        if n % 100 == 99 {
            settle().await;
            assert_eq!(Arc::strong_count(&argument), 1, "after {n}");
        }
    }
    assert_eq!(tree.snapshot().children.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_declines_at_its_restart_is_removed() {
    let (journal, a) = (Journal::default(), address("a"));
    let tree = start(otp_root(DYNAMIC, 1)).await;
    let manners = Manners { declines: vec![2], ..Manners::default() };
    tree.add_child("", ill_mannered("a", &journal, &a, manners)).await.unwrap();
    tell(&a, Message::Panic).await;
    assert!(!exists(&tree, "a"));
    assert_eq!(tree.snapshot().status, supervision::Status::Up);
    tree.add_child("", worker("a", &journal, &a)).await.unwrap();
    assert_eq!(incarnation(&a).await, 1);
}
