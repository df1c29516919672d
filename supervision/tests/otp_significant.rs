//! OTP's test cases about significant children, see `CONFORMANCE.md`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code outside of a test function")]

mod common;

use common::*;
use supervision::{Address, AutoShutdown, ChildSpec, Exit, Orderly, Restart, Status, Strategy, SupervisorSpec, Tree};

const MODES: [AutoShutdown; 3] = [AutoShutdown::Never, AutoShutdown::AnySignificant, AutoShutdown::AllSignificant];

/// How a child can be made to end.
#[derive(Clone, Copy, Debug)]
enum End {
    Normal,
    Shutdown,
    Crash,
    Kill,
    ByHand,
}

const ENDS: [End; 5] = [End::Normal, End::Shutdown, End::Crash, End::Kill, End::ByHand];

async fn end(tree: &Tree, id: &str, address: &Address<Message>, how: End) {
    match how {
        End::Normal => tell(address, Message::Stop).await,
        End::Shutdown => tell(address, Message::End(Orderly::Shutdown)).await,
        End::Crash => tell(address, Message::Panic).await,
        End::Kill => tree.kill_child(id).await.unwrap(),
        End::ByHand => tree.stop_child(id).await.unwrap(),
    }
    settle().await;
}

/// `a` and `b`, made by `make`, and `c` that is of no significance.
async fn trio(mode: AutoShutdown, make: impl Fn(ChildSpec) -> ChildSpec) -> (Tree, [Address<Message>; 2]) {
    trio_under(Strategy::OneForOne, mode, make).await
}

async fn trio_under(
    strategy: Strategy,
    mode: AutoShutdown,
    make: impl Fn(ChildSpec) -> ChildSpec,
) -> (Tree, [Address<Message>; 2]) {
    let (journal, [a, b]) = (Journal::default(), ["a", "b"].map(address));
    let spec = otp_root(strategy, 100)
        .auto_shutdown(mode)
        .child(make(worker("a", &journal, &a)))
        .child(make(worker("b", &journal, &b)))
        .child(idle("c"));
    (start(spec).await, [a, b])
}

fn is_up(tree: &Tree) -> bool {
    tree.snapshot().status == Status::Up
}

fn significant(restart: Restart) -> impl Fn(ChildSpec) -> ChildSpec {
    move |spec| spec.restart(restart).significant()
}

#[tokio::test(start_paused = true)]
async fn only_significant_children_can_end_the_supervisor() {
    for (mode, how) in MODES.into_iter().flat_map(|mode| ENDS.map(|how| (mode, how))) {
        let (tree, [a, b]) = trio(mode, |spec| spec.restart(Restart::Temporary)).await;
        end(&tree, "a", &a, how).await;
        end(&tree, "b", &b, how).await;
        assert!(is_up(&tree), "{mode:?} {how:?}");
        assert_eq!(tree.snapshot().counts().specs, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn transient_children_that_are_not_significant_do_not_end_the_supervisor_and_crashes_are_restarted() {
    for (mode, how) in MODES.into_iter().flat_map(|mode| ENDS.map(|how| (mode, how))) {
        let (tree, [a, b]) = trio(mode, |spec| spec.restart(Restart::Transient)).await;
        end(&tree, "a", &a, how).await;
        end(&tree, "b", &b, how).await;
        assert!(is_up(&tree), "{mode:?} {how:?}");
        let expected = match how {
            End::Normal | End::Shutdown => Status::Finished,
            End::Crash | End::Kill => Status::Up,
            End::ByHand => Status::StoppedByHand,
        };
        assert_eq!((status(&tree, "a"), status(&tree, "b")), (expected, expected), "{mode:?} {how:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_significant_child_that_will_not_come_back_ends_the_supervisor_and_a_stop_by_hand_is_no_trigger() {
    for how in ENDS {
        let by_hand = matches!(how, End::ByHand);
        let (tree, [a, _]) = trio(AutoShutdown::AnySignificant, significant(Restart::Temporary)).await;
        end(&tree, "a", &a, how).await;
        assert_eq!(is_up(&tree), by_hand, "any, {how:?}");
        let (tree, [a, b]) = trio(AutoShutdown::AllSignificant, significant(Restart::Temporary)).await;
        end(&tree, "a", &a, how).await;
        assert!(is_up(&tree), "all, the first {how:?}");
        end(&tree, "b", &b, how).await;
        assert_eq!(is_up(&tree), by_hand, "all, the last {how:?}");
        if !by_hand {
            assert_eq!(tree.ended().await.exit, Exit::Shutdown);
        }
    }
    // One that was stopped by hand does not hold its supervisor up.
    let (tree, [_, b]) = trio(AutoShutdown::AllSignificant, significant(Restart::Temporary)).await;
    tree.stop_child("a").await.unwrap();
    end(&tree, "b", &b, End::Normal).await;
    assert!(!is_up(&tree));
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_a_significant_child_is_not_an_end() {
    for mode in [AutoShutdown::AnySignificant, AutoShutdown::AllSignificant] {
        let (tree, [a, b]) = trio(mode, significant(Restart::Transient)).await;
        for how in [End::Crash, End::Kill] {
            end(&tree, "a", &a, how).await;
            end(&tree, "b", &b, how).await;
        }
        assert_eq!((is_up(&tree), incarnation(&a).await, incarnation(&b).await), (true, 3, 3));
        end(&tree, "a", &a, End::Normal).await;
        assert_eq!(is_up(&tree), mode == AutoShutdown::AllSignificant, "{mode:?}");
        if is_up(&tree) {
            end(&tree, "b", &b, End::Shutdown).await;
        }
        assert_eq!(tree.ended().await.exit, Exit::Shutdown);
    }
}

#[tokio::test(start_paused = true)]
async fn automatic_shutdown_is_not_offered_for_dynamic_children() {
    for mode in [AutoShutdown::AnySignificant, AutoShutdown::AllSignificant] {
        let faults = root(DYNAMIC).auto_shutdown(mode).check().unwrap_err();
        assert_eq!(faults[0].reason, "auto_shutdown is not offered for dynamic children");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_a_sibling_caused_is_no_trigger() {
    for (strategy, restart) in [Strategy::OneForAll, Strategy::RestForOne]
        .into_iter()
        .flat_map(|strategy| [Restart::Transient, Restart::Temporary].map(|restart| (strategy, restart)))
    {
        for mode in [AutoShutdown::AnySignificant, AutoShutdown::AllSignificant] {
            let (journal, a) = (Journal::default(), address("a"));
            let bystander = significant(restart)(worker("b", &journal, &address("b")));
            let spec = otp_root(strategy, 100).auto_shutdown(mode).child(worker("a", &journal, &a)).child(bystander);
            let tree = start(spec).await;
            tell(&a, Message::Panic).await;
            assert!(is_up(&tree), "{strategy:?} {restart:?} {mode:?}");
            assert_eq!(exists(&tree, "b"), restart == Restart::Transient, "{strategy:?} {mode:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn completion_can_climb_the_tree_by_significant_supervisors_only() {
    for climbs in [true, false] {
        let (journal, x) = (Journal::default(), address("x"));
        let inner = SupervisorSpec::like_otp("inner", Strategy::OneForOne)
            .auto_shutdown(AutoShutdown::AnySignificant)
            .child(significant(Restart::Temporary)(worker("x", &journal, &x)));
        let inner = ChildSpec::supervisor(inner).restart(Restart::Transient);
        let inner = if climbs { inner.significant() } else { inner };
        let outer = otp_root(Strategy::OneForOne, 1).auto_shutdown(AutoShutdown::AnySignificant);
        let tree = start(outer.child(inner).child(idle("c"))).await;
        tell(&x, Message::Stop).await;
        assert_eq!(is_up(&tree), !climbs);
        if climbs {
            assert_eq!(tree.ended().await.exit, Exit::Shutdown);
        } else {
            assert_eq!((status(&tree, "inner"), status(&tree, "c")), (Status::Finished, Status::Up));
        }
    }
}
