//! Restarts and operators at odd moments: nothing of an earlier wait, failure or stop reaches into a later life.
#![allow(clippy::unwrap_used, reason = "test code outside of a test function")]

mod common;

use common::{clerk::*, *};
use supervision::{
    Address, Backoff, ChildSpec, EventKind, FirstStart, Intensity, OnGiveUp, Status, Strategy, SupervisorSpec,
};

const STEADY: Backoff = Backoff { jitter: 0.0, ..Backoff::NONE };

fn waits(seconds: u32) -> Backoff {
    Backoff { base: seconds * SECOND, cap: seconds * SECOND, ..STEADY }
}

fn one_for_one() -> SupervisorSpec {
    SupervisorSpec::new("root", Strategy::OneForOne).intensity(generous())
}

/// Degrades at its first failure, and is then tried again within 10 s.
fn degrading(journal: &Journal, address: &Address<Message>, stop_takes: std::time::Duration) -> ChildSpec {
    ill_mannered("a", journal, address, Manners { stop_takes, ..Manners::default() })
        .intensity(Intensity::new(0, SECOND))
        .backoff(Backoff { reset_after: 600 * SECOND, ..Backoff::NONE })
        .on_give_up(OnGiveUp::Degrade { retry: 10 * SECOND })
}

#[tokio::test(start_paused = true)]
async fn the_beat_at_which_a_degraded_child_was_to_be_tried_again_does_not_cut_a_later_stop_short() {
    let (journal, a) = (Journal::default(), address("a"));
    let tree = start(one_for_one().child(degrading(&journal, &a, 4 * SECOND))).await;
    a.try_send(Message::Panic).unwrap();
    settle().await;
    tree.restart("a").await.unwrap();
    assert_eq!(journal.take(), ["start a#1", "drop a#1", "start a#2"]);
    // The retry was due between 5 s and 10 s after the failure: it falls into one of these.
    for incarnation in 2..6 {
        tree.restart("a").await.unwrap();
        let next = incarnation + 1;
        let expected = [format!("stop a#{incarnation}"), format!("drop a#{incarnation}"), format!("start a#{next}")];
        assert_eq!(journal.take(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_child_that_an_operator_declared_recovered_recovers_once() {
    let (journal, a) = (Journal::default(), address("a"));
    let tree = start(one_for_one().child(degrading(&journal, &a, std::time::Duration::ZERO))).await;
    let mut events = tree.events();
    a.try_send(Message::Panic).unwrap();
    tokio::time::sleep(20 * SECOND).await;
    assert_eq!((status(&tree, "a"), node(&tree, "a").degraded), (Status::Up, true));
    tree.stop_child("a").await.unwrap();
    tree.restart("a").await.unwrap();
    tokio::time::sleep(1200 * SECOND).await;
    let recovered =
        std::iter::from_fn(|| events.try_recv().ok()).filter(|event| matches!(event.kind, EventKind::Recovered));
    assert_eq!(recovered.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_member_survives_that_an_earlier_one_fails_while_the_group_waits() {
    let (journal, a, b) = (Journal::default(), address("a"), address("b"));
    let (c, books, letters) = (Address::new("c"), Books::default(), Letters::default());
    let c = c.keep_mailbox().on_dead_letter(letters.hook());
    let spec = SupervisorSpec::new("root", Strategy::RestForOne)
        .intensity(generous())
        .child(worker("a", &journal, &a))
        .child(worker("b", &journal, &b).backoff(waits(10)))
        .child(clerk_named("c", &c, &books, false));
    let tree = start(spec).await;
    b.try_send(Message::Panic).unwrap();
    settle().await;
    (0..5).for_each(|number| c.try_send(entry(number)).unwrap());
    a.try_send(Message::Panic).unwrap();
    tokio::time::sleep(60 * SECOND).await;
    assert!(letters.take().is_empty());
    assert_eq!(books.entries()[&0], (0..5).collect::<Vec<_>>());
    tree.stop().await;
}

#[tokio::test(start_paused = true)]
async fn two_of_a_group_that_failed_at_first_wait_together() {
    let (journal, manners) = (Journal::default(), Manners { fails_to_start: vec![1], ..Manners::default() });
    let failing = |id: &str, seconds| {
        ill_mannered(id, &journal, &address(id), manners.clone())
            .on_first_start(FirstStart::Retry)
            .backoff(waits(seconds))
    };
    let spec = SupervisorSpec::new("root", Strategy::OneForAll)
        .intensity(generous())
        .child(failing("a", 10))
        .child(failing("b", 20))
        .child(worker("c", &journal, &address("c")));
    let tree = start(spec).await;
    tokio::time::sleep(60 * SECOND).await;
    let up = ["a", "b", "c"].map(|id| (status(&tree, id), node(&tree, id).incarnation));
    assert_eq!(up, [(Status::Up, 2), (Status::Up, 2), (Status::Up, 2)]);
    assert_eq!(journal.take_only("start"), ["c#1", "a#2", "b#2", "c#2"]);
}
