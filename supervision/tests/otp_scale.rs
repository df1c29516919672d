//! OTP's test cases about memory and scale, see `CONFORMANCE.md`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code outside of a test function")]

mod common;

use std::{sync::Arc, time::Duration};

use common::*;
use supervision::{ChildSpec, Orderly, Restart, Strategy, Tree};
use tokio::time::Instant;

/// As [`idle`], with a start function that holds on to its argument.
fn with_argument(id: &str, argument: &Arc<()>) -> ChildSpec {
    let argument = Arc::clone(argument);
    let run = move |context: supervision::ChildContext| {
        let argument = Arc::clone(&argument);
        async move {
            context.cancelled().cancelled().await;
            drop(argument);
            Ok(())
        }
    };
    ChildSpec::task(id, run).label("child").restart(Restart::Temporary)
}

#[tokio::test(start_paused = true)]
async fn no_start_arguments_are_kept_of_children_that_never_restart_however_they_ended() {
    let (journal, first, argument) = (Journal::default(), address("first"), Arc::new(()));
    let tree = start(otp_root(Strategy::OneForAll, 1).child(worker("first", &journal, &first))).await;
    for round in 0..100 {
        for n in 0..20 {
            tree.add_child("", with_argument(&format!("c{n}"), &argument)).await.unwrap();
        }
        assert!(Arc::strong_count(&argument) > 20);
        for n in 0..20 {
            let id = format!("c{n}");
            match n % 4 {
                0 => tree.stop_child(id.as_str()).await.unwrap(),
                1 => tree.kill_child(id.as_str()).await.unwrap(),
                2 => tree.inject_panic(id.as_str()).await.unwrap(),
                // Taken down with its group.
                _ => {}
            }
        }
        settle().await;
        tell(&first, Message::Panic).await;
        tokio::time::sleep(7 * SECOND).await;
        assert_eq!(Arc::strong_count(&argument), 1, "round {round}");
        assert_eq!(tree.snapshot().children.len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn specs_of_permanent_and_transient_children_survive_ends_and_stops_by_hand_and_those_of_temporary_ones_do_not() {
    for restart in [Restart::Permanent, Restart::Transient, Restart::Temporary] {
        for how in ["normal", "shutdown", "crash", "stopped by hand"] {
            let (journal, a) = (Journal::default(), address("a"));
            let spec = worker("a", &journal, &a).restart(restart);
            let tree = start(otp_root(Strategy::OneForOne, 1).child(spec)).await;
            match how {
                "normal" => tell(&a, Message::Stop).await,
                "shutdown" => tell(&a, Message::End(Orderly::Shutdown)).await,
                "crash" => tell(&a, Message::Panic).await,
                _ => tree.stop_child("a").await.unwrap(),
            }
            let is_kept = tree.spec_of("a").is_some();
            assert_eq!(is_kept, restart != Restart::Temporary, "{restart:?} {how}");
            assert_eq!(tree.snapshot().counts().specs, usize::from(is_kept));
        }
    }
}

/// Adds this many children and stops each by hand: how long the one and the other took.
async fn add_and_stop(tree: &Tree, children: usize, restart: Restart) -> [Duration; 2] {
    let began = Instant::now();
    for n in 0..children {
        tree.add_child("", idle(format!("c{n}")).label("child").restart(restart)).await.unwrap();
    }
    let added = began.elapsed();
    assert_eq!(tree.snapshot().counts().active, children);
    let began = Instant::now();
    for n in 0..children {
        tree.stop_child(format!("c{n}").as_str()).await.unwrap();
    }
    [added, began.elapsed()]
}

/// How many times longer `many` takes than `few`, which is taken three times for its best.
fn ratio(few: &[[Duration; 2]], many: [Duration; 2], index: usize) -> f64 {
    let best = few.iter().map(|took| took[index]).min().unwrap();
    many[index].as_secs_f64() / best.as_secs_f64()
}

#[tokio::test]
async fn the_removal_of_one_of_many_dynamic_children_does_not_cost_more_the_more_there_are() {
    let mut few = Vec::new();
    for _ in 0..3 {
        few.push(add_and_stop(&start(otp_root(DYNAMIC, 1)).await, 1000, Restart::Temporary).await);
    }
    let many = add_and_stop(&start(otp_root(DYNAMIC, 1)).await, 10_000, Restart::Temporary).await;
    // Ten times as many; OTP's own suite allows 50 times as long.
    let stopping = ratio(&few, many, 1);
    assert!(stopping < 50.0, "{stopping} times as long: {few:?} {many:?}");
}

#[tokio::test]
async fn adding_and_stopping_named_children_scales_about_linearly() {
    const FEW: usize = 1000;
    // In a debug build; the benchmarks go to 100 000.
    const MANY: usize = 20_000;
    let mut few = Vec::new();
    for _ in 0..3 {
        few.push(add_and_stop(&start(otp_root(Strategy::OneForOne, 1)).await, FEW, Restart::Permanent).await);
    }
    let tree = start(otp_root(Strategy::OneForOne, 1)).await;
    let many = add_and_stop(&tree, MANY, Restart::Permanent).await;
    assert_eq!(tree.snapshot().counts().specs, MANY);
    for (index, what) in ["adding", "stopping"].into_iter().enumerate() {
        let times = ratio(&few, many, index);
        // OTP's own suite allows ten times what is linear.
        assert!(times < 10.0 * (MANY / FEW) as f64, "{what}: {times} times as long: {few:?} {many:?}");
    }
}
