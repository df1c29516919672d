//! What the tree remembers of its children, and for how long.

mod common;

use common::{Journal, Manners, Message, SECOND, address, generous, ill_mannered, settle, start, worker};
use supervision::{Backoff, ChildSpec, Exit, FirstStart, Intensity, Status, Strategy, SupervisorSpec};

#[tokio::test(start_paused = true)]
async fn the_failed_start_with_which_the_budget_is_used_up_is_remembered_too() {
    let (journal, a) = (Journal::default(), address("a"));
    let manners = Manners { fails_to_start: vec![2, 3, 4], ..Manners::default() };
    let spec = SupervisorSpec::new("root", Strategy::OneForOne)
        .intensity(Intensity::new(3, 60 * SECOND))
        .child(ill_mannered("a", &journal, &a, manners));
    let tree = start(spec).await;
    a.try_send(Message::Panic).unwrap();
    assert!(matches!(tree.ended().await.exit, Exit::GaveUp { .. }));
    let node = tree.snapshot().find("a").cloned().unwrap();
    assert_eq!((node.failures["panic"], node.failures["error"], node.restarts), (1, 3, 3));
    assert_eq!(node.history.len(), 4);
    assert_eq!(node.history.last().unwrap().restart_in_ms, None);
}

#[tokio::test(start_paused = true)]
async fn what_is_known_of_a_child_outlives_the_restart_of_a_supervisor_at_any_height_above_it() {
    let (journal, a) = (Journal::default(), address("a"));
    let inner =
        SupervisorSpec::new("inner", Strategy::OneForOne).intensity(generous()).child(worker("a", &journal, &a));
    let outer = SupervisorSpec::new("outer", Strategy::OneForOne).child(ChildSpec::supervisor(inner));
    let root =
        SupervisorSpec::new("root", Strategy::OneForOne).child(ChildSpec::supervisor(outer).backoff(Backoff::NONE));
    let tree = start(root).await;
    a.try_send(Message::Panic).unwrap();
    settle().await;
    tree.inject_panic("outer").await.unwrap();
    settle().await;
    let node = tree.snapshot().find("outer.inner.a").cloned().unwrap();
    assert_eq!((node.incarnation, node.restarts, node.failures["panic"], node.history.len()), (3, 1, 1, 1));
    assert_eq!(journal.take_only("start"), ["outer.inner.a#1", "outer.inner.a#2", "outer.inner.a#3"]);
}

#[tokio::test(start_paused = true)]
async fn a_tree_that_gives_up_as_soon_as_it_has_started_is_shown_as_down() {
    let (journal, a) = (Journal::default(), address("a"));
    let manners = Manners { fails_to_start: vec![1], ..Manners::default() };
    let spec = SupervisorSpec::new("root", Strategy::OneForOne)
        .intensity(Intensity::new(0, SECOND))
        .child(ill_mannered("a", &journal, &a, manners).on_first_start(FirstStart::Retry));
    let tree = start(spec).await;
    settle().await;
    assert_eq!(tree.snapshot().status, Status::Down);
}
