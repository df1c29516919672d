//! What becomes of messages that wait: across restarts, when the actor is gone, and under load.

#![expect(clippy::unwrap_used, reason = "test code outside of a test function")]

mod common;

use std::{sync::Arc, time::Duration};

use common::{clerk::*, *};
use supervision::{
    Address, Backoff, CallError, DeadLetter, Intensity, LossReason, OnGiveUp, Restart, SendError, Shutdown, Strategy,
    SupervisorSpec, Tree,
};
use tokio::sync::Semaphore;

const SENDERS: usize = 4;
const EACH: u64 = 25_000;
const ALL: usize = 100_000;

/// A tree of one clerk behind `address`.
async fn tree_of(address: &Address<Order>, books: &Books) -> Tree {
    start(root().child(clerk(address, books))).await
}

fn root() -> SupervisorSpec {
    SupervisorSpec::new("root", Strategy::OneForOne).intensity(generous())
}

/// Makes the clerk busy; it goes on when the semaphore has a permit.
async fn hold(address: &Address<Order>) -> Arc<Semaphore> {
    let until = Arc::new(Semaphore::new(0));
    address.try_send(Order::Hold(Arc::clone(&until))).unwrap();
    settle().await;
    until
}

#[tokio::test(start_paused = true)]
async fn messages_that_wait_in_a_kept_mailbox_survive_the_restart_in_order() {
    let (address, books, letters) = (Address::new("clerk"), Books::default(), Letters::default());
    let address = address.keep_mailbox().on_dead_letter(letters.hook());
    let tree = tree_of(&address, &books).await;
    let held = hold(&address).await;
    address.try_send(Order::Panic).unwrap();
    (0..10).for_each(|number| address.try_send(entry(number)).unwrap());
    assert_eq!(address.waiting(), 11);
    held.add_permits(1);
    assert_eq!(incarnation(&address).await, 2);
    assert_eq!(books.entries()[&0], (0..10).collect::<Vec<_>>());
    tree.stop().await;
    assert!(letters.take().is_empty());
}

#[tokio::test(start_paused = true)]
async fn messages_that_wait_in_an_ordinary_mailbox_are_lost_with_the_incarnation_and_counted() {
    let (books, letters) = (Books::default(), Letters::default());
    let address = Address::new("clerk").on_dead_letter(letters.hook());
    let tree = tree_of(&address, &books).await;
    address.try_send(Order::Panic).unwrap();
    (0..10).for_each(|number| address.try_send(entry(number)).unwrap());
    settle().await;
    assert!(matches!(letters.take()[..], [DeadLetter::Lost { count: 10, reason: LossReason::Failed }]));
    assert_eq!((books.count(), incarnation(&address).await), (0, 2));
    tree.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_in_a_kept_mailbox_is_answered_by_the_next_incarnation() {
    let (address, books) = (Address::new("clerk").keep_mailbox(), Books::default());
    let tree = tree_of(&address, &books).await;
    address.try_send(Order::Panic).unwrap();
    assert_eq!(address.call(Order::Incarnation, SECOND).await, Ok(2));
    tree.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_kept_mailbox_takes_messages_up_to_its_capacity_while_its_actor_waits_for_its_restart() {
    let (address, books) = (Address::with_capacity("clerk", 3).keep_mailbox(), Books::default());
    let backoff = Backoff { jitter: 0.0, ..Backoff::default() };
    let tree = start(root().child(clerk(&address, &books).backoff(backoff))).await;
    address.try_send(Order::Panic).unwrap();
    settle().await;
    assert!(!address.is_up());
    (0..3).for_each(|number| address.try_send(entry(number)).unwrap());
    assert!(matches!(address.try_send(entry(3)), Err(SendError::Full { .. })));
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!((books.entries()[&0].len(), address.waiting()), (3, 0));
    tree.stop().await;
    assert!(matches!(address.try_send(entry(4)), Err(SendError::Down { .. })));
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_kept_when_an_operator_or_the_group_restarts_the_actor() {
    let (first, second) = (Address::new("first").keep_mailbox(), Address::new("second").keep_mailbox());
    let (books, others) = (Books::default(), Books::default());
    let spec = SupervisorSpec::new("root", Strategy::OneForAll).intensity(generous());
    let children = [clerk_named("first", &first, &others, false), clerk_named("second", &second, &books, false)];
    let tree = start(children.into_iter().fold(spec, SupervisorSpec::child)).await;
    for (round, by_hand) in [(0, true), (1, false)] {
        let held = hold(&second).await;
        (0..5).for_each(|number| second.try_send(entry(round * 5 + number)).unwrap());
        let restart = async {
            if by_hand {
                tree.restart("second").await.unwrap();
            } else {
                first.try_send(Order::Panic).unwrap();
            }
        };
        let release = async {
            settle().await;
            held.add_permits(1);
        };
        tokio::join!(restart, release);
        assert_eq!(second.call(Order::Incarnation, SECOND).await, Ok(round + 2));
    }
    assert_eq!(books.entries()[&0], (0..10).collect::<Vec<_>>());
    tree.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_that_fails_and_is_tried_again_costs_no_message_that_waits() {
    let (address, journal) = (Address::new("a").keep_mailbox(), Journal::default());
    let manners = Manners { fails_to_start: vec![2, 3], ..Manners::default() };
    let tree = start(root().child(ill_mannered("a", &journal, &address, manners))).await;
    address.try_send(Message::Panic).unwrap();
    assert_eq!(address.call(Message::Incarnation, SECOND).await, Ok(4));
    tree.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_when_the_actor_is_stopped_becomes_dead_letters_in_order() {
    let (books, letters) = (Books::default(), Letters::default());
    let address = Address::new("clerk").keep_mailbox().on_dead_letter(letters.hook());
    let tree = start(root().child(clerk(&address, &books).stop_within(Shutdown::BrutalKill))).await;
    let _held = hold(&address).await;
    (0..10).for_each(|number| address.try_send(entry(number)).unwrap());
    tree.stop_child("clerk").await.unwrap();
    assert_eq!(letters.undelivered(), (0..10).map(|number| (number, LossReason::Stopped)).collect::<Vec<_>>());
    assert_eq!(letters.take().len(), 10, "and nothing else");
    assert!(matches!(address.try_send(entry(10)), Err(SendError::Down { .. })));
    assert!(letters.take().is_empty(), "what is given back is no dead letter");
    tree.start_child("clerk").await.unwrap();
    assert_eq!(incarnation(&address).await, 2);
    assert_eq!(books.count(), 0);
    tree.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_restart_that_is_called_off_becomes_dead_letters() {
    let (books, letters) = (Books::default(), Letters::default());
    let address = Address::new("clerk").keep_mailbox().on_dead_letter(letters.hook());
    let tree = start(root().child(clerk(&address, &books).backoff(Backoff::default()))).await;
    address.try_send(Order::Panic).unwrap();
    address.try_send(entry(0)).unwrap();
    settle().await;
    tree.stop_child("clerk").await.unwrap();
    assert_eq!(letters.undelivered(), [(0, LossReason::Stopped)]);
    assert!(matches!(address.try_send(entry(1)), Err(SendError::Down { .. })));
    tree.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_when_the_actor_gives_up_or_is_not_started_again_becomes_dead_letters() {
    let once = Intensity::new(0, SECOND);
    type Change = fn(supervision::ChildSpec, Intensity) -> supervision::ChildSpec;
    let changes: [Change; 2] =
        [|spec, once| spec.intensity(once).on_give_up(OnGiveUp::Escalate), |spec, _| spec.restart(Restart::Temporary)];
    for change in changes {
        let (books, letters) = (Books::default(), Letters::default());
        let address = Address::new("clerk").keep_mailbox().on_dead_letter(letters.hook());
        let tree = start(root().child(change(clerk(&address, &books), once))).await;
        address.try_send(Order::Panic).unwrap();
        (0..2).for_each(|number| address.try_send(entry(number)).unwrap());
        settle().await;
        assert_eq!(letters.undelivered(), [(0, LossReason::Failed), (1, LossReason::Failed)]);
        tree.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn of_an_actor_that_finishes_all_but_the_message_just_handed_over_become_dead_letters() {
    let (books, letters) = (Books::default(), Letters::default());
    let address = Address::new("clerk").keep_mailbox().on_dead_letter(letters.hook());
    let tree = start(root().child(clerk(&address, &books).restart(Restart::Transient))).await;
    address.try_send(Order::Finish).unwrap();
    (0..3).for_each(|number| address.try_send(entry(number)).unwrap());
    settle().await;
    assert_eq!(letters.undelivered(), [(1, LossReason::Finished), (2, LossReason::Finished)]);
    assert_eq!((letters.lost(), books.count()), (1, 0));
    tree.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_message_becomes_a_dead_letter_fails_as_lost() {
    let (address, books) = (Address::new("clerk").keep_mailbox(), Books::default());
    let tree = start(root().child(clerk(&address, &books).stop_within(Shutdown::BrutalKill))).await;
    let _held = hold(&address).await;
    let stop = async {
        settle().await;
        tree.stop_child("clerk").await.unwrap();
    };
    let (answer, ()) = tokio::join!(address.call(Order::Incarnation, SECOND), stop);
    assert_eq!(answer, Err(CallError::Lost));
    tree.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_panics_gets_the_next_letter_all_the_same() {
    let (books, letters) = (Books::default(), Letters::default());
    let hook = letters.hook();
    let address = Address::new("clerk").keep_mailbox().on_dead_letter(move |letter| {
        hook(letter);
        panic!("in the hook");
    });
    let tree = start(root().child(clerk(&address, &books).stop_within(Shutdown::BrutalKill))).await;
    let _held = hold(&address).await;
    (0..3).for_each(|number| address.try_send(entry(number)).unwrap());
    assert!(tree.stop().await.is_clean());
    assert_eq!(letters.undelivered().len(), 3);
}

/// Every message of a kept mailbox is taken exactly once, in the order of its sender; those that panic are among them.
async fn all_are_taken_once(address: Address<Order>) {
    let (books, letters) = (Books::default(), Letters::default());
    let address = address.keep_mailbox().on_dead_letter(letters.hook());
    let tree = tree_of(&address, &books).await;
    let senders = Senders::start(&address, SENDERS, EACH);
    assert_eq!(senders.given_back().await, 0);
    assert_eq!(last_word(&address).await, 0);
    let expected: Vec<u64> = (0..EACH).collect();
    for (sender, taken) in books.entries() {
        assert!(taken == expected, "sender {sender}: {} taken", taken.len());
    }
    assert_eq!(books.count(), ALL);
    let restarts = ALL as u64 / PANIC_EVERY;
    assert_eq!(tree.snapshot().find("clerk").unwrap().restarts, restarts);
    assert!(tree.stop().await.is_clean());
    assert!(letters.take().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_100_000_messages_none_is_lost_in_100_panics() {
    all_are_taken_once(Address::with_capacity("clerk", 64)).await;
}

#[tokio::test(start_paused = true)]
async fn of_100_000_messages_none_is_lost_in_100_panics_on_one_thread() {
    all_are_taken_once(Address::with_capacity("clerk", 1)).await;
    all_are_taken_once(Address::new("clerk")).await;
}

/// Handled, given back and counted as lost make up what was sent.
async fn all_are_accounted_for(address: Address<Order>) {
    let (books, letters) = (Books::default(), Letters::default());
    let address = address.on_dead_letter(letters.hook());
    let tree = tree_of(&address, &books).await;
    let senders = Senders::start(&address, SENDERS, EACH);
    let given_back = senders.given_back().await;
    let lost_calls = last_word(&address).await;
    assert_eq!(books.count() + given_back + letters.lost(), ALL + lost_calls);
    assert!(tree.stop().await.is_clean());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_100_000_messages_each_is_handled_given_back_or_counted() {
    all_are_accounted_for(Address::with_capacity("clerk", 64)).await;
    all_are_accounted_for(Address::new("clerk")).await;
}

#[tokio::test(start_paused = true)]
async fn of_100_000_messages_each_is_handled_given_back_or_counted_on_one_thread() {
    all_are_accounted_for(Address::new("clerk")).await;
}

/// Restarts the clerk by hand for as long as there is something to send.
async fn restarted_by_hand(address: Address<Order>, shutdown: Shutdown) -> (usize, usize) {
    let (books, letters) = (Books::default(), Letters::default());
    let address = address.keep_mailbox().on_dead_letter(letters.hook());
    let tree = start(root().child(clerk_named("clerk", &address, &books, true).stop_within(shutdown))).await;
    let senders = Senders::start(&address, SENDERS, EACH / 10);
    let mut restarts = 0;
    while !senders.are_done() {
        tokio::time::sleep(Duration::from_micros(500)).await;
        tree.restart("clerk").await.unwrap();
        restarts += 1;
    }
    assert_eq!(senders.given_back().await, 0);
    let lost_calls = last_word(&address).await;
    assert_eq!(books.count() + letters.lost(), ALL / 10 + lost_calls);
    assert!(books.entries().values().all(|taken| taken.is_sorted_by(|a, b| a < b)));
    assert!(letters.undelivered().is_empty());
    tree.stop().await;
    (letters.lost(), restarts)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stop_or_a_kill_in_the_middle_costs_a_kept_mailbox_one_message_at_most() {
    for shutdown in [Shutdown::BrutalKill, Shutdown::Within(SECOND)] {
        let (lost, restarts) = restarted_by_hand(Address::with_capacity("clerk", 256), shutdown).await;
        assert!(restarts > 1 && lost <= restarts, "{lost} lost in {restarts} restarts");
    }
}

/// Stops and starts the clerk for as long as there is something to send.
async fn stopped_and_started(address: Address<Order>, shutdown: Shutdown) {
    let (books, letters) = (Books::default(), Letters::default());
    let address = address.on_dead_letter(letters.hook());
    let tree = start(root().child(clerk_named("clerk", &address, &books, true).stop_within(shutdown))).await;
    let senders = Senders::start(&address, SENDERS, EACH);
    while !senders.are_done() {
        tokio::time::sleep(Duration::from_micros(500)).await;
        tree.stop_child("clerk").await.unwrap();
        tree.start_child("clerk").await.unwrap();
    }
    let given_back = senders.given_back().await;
    let lost_calls = last_word(&address).await;
    let accounted = books.count() + given_back + letters.lost() + letters.undelivered().len();
    assert_eq!(accounted, ALL + lost_calls);
    tree.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn stops_and_kills_in_the_middle_leave_no_message_unaccounted_for() {
    for shutdown in [Shutdown::BrutalKill, Shutdown::Within(SECOND)] {
        stopped_and_started(Address::with_capacity("clerk", 256), shutdown).await;
        stopped_and_started(Address::with_capacity("clerk", 256).keep_mailbox(), shutdown).await;
    }
}

/// Which incarnation answers.
async fn incarnation(address: &Address<Order>) -> u64 {
    address.call(Order::Incarnation, SECOND).await.unwrap()
}
