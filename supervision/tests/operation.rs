//! What operators and callers see and do while the tree lives.

mod common;

use std::time::Duration;

use common::*;
use supervision::{
    Backoff, BeatState, CallError, ChildSpec, EventKind, Exit, MailboxSnapshot, OperationError, SendError, Shutdown,
    Status, StopOutcome, Strategy, SupervisorSpec,
};

fn single(journal: &Journal, a: &supervision::Address<Message>) -> SupervisorSpec {
    SupervisorSpec::new("root", Strategy::OneForOne).intensity(generous()).child(worker("a", journal, a))
}

#[tokio::test(start_paused = true)]
async fn operations_reach_a_child_by_its_path() {
    let (journal, x) = (Journal::default(), address("x"));
    let inner = SupervisorSpec::new("inner", Strategy::OneForOne).child(worker("x", &journal, &x));
    let tree = start(SupervisorSpec::new("root", Strategy::OneForOne).child(ChildSpec::supervisor(inner))).await;
    tree.restart("inner.x").await.unwrap();
    assert_eq!(incarnation(&x).await, 2);
    tree.stop_child("inner/x").await.unwrap();
    assert_eq!(status(&tree, "inner.x"), Status::StoppedByHand);
    assert!(matches!(x.try_send(Message::Fail), Err(SendError::Down { .. })));
    tree.start_child("inner.x").await.unwrap();
    assert_eq!(tree.start_child("inner.x").await, Err(OperationError::AlreadyRunning));
    assert_eq!(tree.delete_child("inner.x").await, Err(OperationError::AlreadyRunning));
    let counts = tree.snapshot().counts();
    assert_eq!((counts.specs, counts.active, counts.supervisors, counts.workers), (1, 1, 1, 0));
    assert_eq!(tree.restart("inner.nobody").await, Err(OperationError::NotFound));
    assert_eq!(tree.restart("inner.x.below").await, Err(OperationError::NotFound));
    tree.stop_child("inner.x").await.unwrap();
    tree.delete_child("inner.x").await.unwrap();
    assert!(tree.snapshot().find("inner.x").is_none());
}

#[tokio::test(start_paused = true)]
async fn stopping_a_waiting_child_cancels_its_restart() {
    let (journal, a) = (Journal::default(), address("a"));
    let spec = SupervisorSpec::new("root", Strategy::OneForOne)
        .intensity(generous())
        .child(worker("a", &journal, &a).backoff(Backoff::default()));
    let tree = start(spec).await;
    a.try_send(Message::Panic).unwrap();
    settle().await;
    assert!(matches!(status(&tree, "a"), Status::Waiting { .. }));
    tree.stop_child("a").await.unwrap();
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(status(&tree, "a"), Status::StoppedByHand);
    assert_eq!(journal.take_only("start"), ["a#1"]);
}

#[tokio::test(start_paused = true)]
async fn a_dynamic_supervisor_has_a_limit_and_refuses_a_second_child_of_one_id() {
    let journal = Journal::default();
    let pool = SupervisorSpec::new("pool", Strategy::Dynamic { max_children: 2 });
    let tree = start(SupervisorSpec::new("root", Strategy::OneForOne).child(ChildSpec::supervisor(pool))).await;
    let add = async |id: &str| tree.add_child("pool", worker(id, &journal, &address(id))).await;
    add("one").await.unwrap();
    assert_eq!(add("one").await, Err(OperationError::AlreadyRunning));
    add("two").await.unwrap();
    assert_eq!(add("three").await, Err(OperationError::TooManyChildren { max_children: 2 }));
    assert!(matches!(add("with.dot").await, Err(OperationError::BadSpec { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_child_that_is_added_and_does_not_start_is_not_kept() {
    let journal = Journal::default();
    let tree = start(single(&journal, &address("a"))).await;
    let bad = Manners { fails_to_start: vec![1], ..Manners::default() };
    let added = tree.add_child("", ill_mannered("bad", &journal, &address("bad"), bad)).await;
    assert_eq!(added, Err(OperationError::StartFailed { exit: Exit::Error("cannot start".to_owned()) }));
    assert!(tree.snapshot().find("bad").is_none());
}

#[tokio::test(start_paused = true)]
async fn the_address_survives_restarts_and_bounds_what_waits() {
    let (journal, a) = (Journal::default(), supervision::Address::with_capacity("a", 3));
    let tree = start(single(&journal, &a)).await;
    a.try_send(Message::Sleep(10 * SECOND)).unwrap();
    settle().await;
    for _ in 0..3 {
        a.try_send(Message::Sleep(Duration::ZERO)).unwrap();
    }
    assert!(matches!(a.try_send(Message::Fail), Err(SendError::Full { .. })));
    assert_eq!(a.waiting(), 3);
    assert_eq!(tree.snapshot().find("a").unwrap().mailbox, Some(MailboxSnapshot { waiting: 3, capacity: 3 }));
    assert_eq!(tree.snapshot().mailbox, None, "a supervisor has none");
    tokio::time::sleep(11 * SECOND).await;
    assert_eq!(a.waiting(), 0);
    a.try_send(Message::Panic).unwrap();
    settle().await;
    assert_eq!(incarnation(&a).await, 2);
    tree.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_has_a_deadline_and_says_when_the_actor_ended_first() {
    let (journal, a) = (Journal::default(), address("a"));
    let tree = start(single(&journal, &a)).await;
    a.try_send(Message::Sleep(10 * SECOND)).unwrap();
    assert_eq!(a.call(Message::Incarnation, SECOND).await, Err(CallError::Timeout));
    tokio::time::sleep(10 * SECOND).await;
    a.try_send(Message::Panic).unwrap();
    assert_eq!(a.call(Message::Incarnation, SECOND).await, Err(CallError::Lost));
    tree.stop().await;
    assert_eq!(a.call(Message::Incarnation, SECOND).await, Err(CallError::Down));
}

#[tokio::test(start_paused = true)]
async fn the_tasks_of_an_incarnation_end_with_it() {
    let (journal, held) = (Journal::default(), Journal::default());
    let spec = ChildSpec::task("a", {
        let held = held.clone();
        move |context| {
            let held = held.clone();
            async move {
                let (token, number) = (context.tasks().token(), context.incarnation());
                held.write(format!("begin {number}"));
                context.tasks().spawn("helper", async move {
                    token.cancelled().await;
                    held.write(format!("end {number}"));
                });
                tokio::time::sleep(SECOND).await;
                Err("over".into())
            }
        }
    })
    .backoff(Backoff::NONE);
    let spec = SupervisorSpec::new("root", Strategy::OneForOne).intensity(generous()).child(spec);
    let tree = start(spec.child(worker("b", &journal, &address("b")))).await;
    tokio::time::sleep(SECOND + SECOND / 2).await;
    tree.stop().await;
    assert_eq!(held.take(), ["begin 1", "end 1", "begin 2", "end 2"]);
}

#[tokio::test(start_paused = true)]
async fn a_part_that_may_panic_costs_its_child_nothing() {
    let journal = Journal::default();
    let task = ChildSpec::task("a", {
        let journal = journal.clone();
        move |context| {
            let journal = journal.clone();
            async move {
                let panicked = context.run_with_recover("part", async { panic!("in a part") }).await;
                journal.write(
                    panicked.map_or_else(|panicked: supervision::Panicked| panicked.message, |()| "fine".into()),
                );
                context.cancelled().cancelled().await;
                Ok(())
            }
        }
    });
    let tree = start(SupervisorSpec::new("root", Strategy::OneForOne).child(task)).await;
    settle().await;
    assert_eq!(journal.take(), ["in a part"]);
    assert_eq!(tree.snapshot().find("a").unwrap().incarnation, 1);
}

#[tokio::test(start_paused = true)]
async fn events_and_snapshot_tell_the_same_story() {
    let (journal, a) = (Journal::default(), address("a"));
    let tree = start(single(&journal, &a)).await;
    let mut events = tree.events();
    a.try_send(Message::Panic).unwrap();
    settle().await;
    let mut kinds = Vec::new();
    while let Ok(event) = events.try_recv() {
        assert_eq!(event.path.as_str(), "a");
        kinds.push(match event.kind {
            EventKind::Exited { exit } => format!("exited: {exit}"),
            EventKind::RestartScheduled { delay } => format!("restart in {delay:?}"),
            EventKind::Started { .. } => format!("started #{}", event.incarnation),
            other => format!("{other:?}"),
        });
    }
    assert_eq!(kinds, ["exited: panicked: asked to panic", "restart in 0ns", "started #2"]);
    let node = tree.snapshot().find("a").unwrap().clone();
    assert_eq!((node.restarts, node.incarnation), (1, 2));
    assert_eq!(node.history.len(), 1);
    assert_eq!(node.history[0].exit, Exit::Panic("asked to panic".to_owned()));
    let json = serde_json::to_value(tree.snapshot()).unwrap();
    assert_eq!(json["children"][0]["status"], "up");
    assert_eq!(json["children"][0]["path"], "a");
}

#[tokio::test(start_paused = true)]
async fn a_drill_makes_any_child_panic_whatever_it_is_made_of() {
    let (journal, a) = (Journal::default(), address("a"));
    let task = ChildSpec::task("task", |context| async move {
        context.cancelled().cancelled().await;
        Ok(())
    })
    .backoff(Backoff::NONE);
    let tree = start(single(&journal, &a).child(task)).await;
    for path in ["a", "task"] {
        tree.inject_panic(path).await.unwrap();
        settle().await;
        let node = tree.snapshot().find(path).unwrap().clone();
        assert_eq!((node.incarnation, node.failures.get("panic")), (2, Some(&1)), "{path}");
    }
    assert_eq!(tree.inject_panic("nobody").await, Err(OperationError::NotFound));
}

#[tokio::test(start_paused = true)]
async fn a_child_that_hangs_is_stale_and_busy_and_told_apart_from_one_that_is_idle() {
    /// Beats with every message, and sends itself the next one.
    struct Beating;
    impl ractor::Actor for Beating {
        type Msg = ();
        type State = supervision::Heartbeat;
        type Arguments = supervision::ChildContext;

        async fn pre_start(
            &self,
            myself: ractor::ActorRef<()>,
            context: supervision::ChildContext,
        ) -> Result<supervision::Heartbeat, ractor::ActorProcessingErr> {
            myself.cast(())?;
            Ok(context.heartbeat("loop", SECOND))
        }

        async fn handle(
            &self,
            myself: ractor::ActorRef<()>,
            (): (),
            heartbeat: &mut supervision::Heartbeat,
        ) -> Result<(), ractor::ActorProcessingErr> {
            heartbeat.beat();
            #[expect(
                clippy::disallowed_methods,
                reason = "each of its messages makes the next one; none is left behind"
            )]
            myself.send_after(SECOND, || ());
            Ok(())
        }
    }
    let beating = |id: &str| {
        ChildSpec::actor(id, &supervision::Address::new(id), |context| (Beating, context)).backoff(Backoff::NONE)
    };
    let spec = SupervisorSpec::new("root", Strategy::OneForOne).child(beating("good")).child(beating("bad"));
    let tree = start(spec).await;
    tree.inject_hang("bad").await.unwrap();
    tokio::time::sleep(5 * SECOND).await;
    let beats = tree.heartbeats().snapshot();
    let states: Vec<_> = beats.iter().map(|beat| (beat.path.as_str(), beat.state, beat.busy.is_some())).collect();
    assert_eq!(states, [("bad", BeatState::Stale, true), ("good", BeatState::Beating, false)]);
    assert_eq!(beats[0].busy.as_ref().map(|busy| busy.message_type), Some("()"));
    assert_eq!(status(&tree, "bad"), Status::Up);
    let report = tree.stop().await;
    let unclean: Vec<_> = report.unclean().map(|child| (child.path.as_str(), child.outcome.clone())).collect();
    assert_eq!(unclean, [("bad", StopOutcome::Killed)]);
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_or_a_task_that_hangs_is_killed_at_its_budget_with_all_below_it() {
    let journal = Journal::default();
    let inner = SupervisorSpec::new("inner", Strategy::OneForOne)
        .child(worker("x", &journal, &address("x")))
        .child(worker("y", &journal, &address("y")));
    let task = ChildSpec::task("task", |context| async move {
        context.cancelled().cancelled().await;
        Ok(())
    });
    let inner = ChildSpec::supervisor(inner).stop_within(Shutdown::Within(3 * SECOND));
    let tree = start(SupervisorSpec::new("root", Strategy::OneForOne).child(inner).child(task)).await;
    tree.inject_hang("inner").await.unwrap();
    tree.inject_hang("task").await.unwrap();
    settle().await;
    let report = tree.stop().await;
    let outcomes: Vec<_> = report.children.iter().map(|child| (child.path.as_str(), child.outcome.clone())).collect();
    let killed = |path| (path, StopOutcome::Killed);
    assert_eq!(outcomes, ["task", "inner.y", "inner.x", "inner"].map(killed));
    assert_eq!(journal.take_only("drop"), ["inner.y#1", "inner.x#1"]);
}

/// Written by hand: its callbacks panic before they return their futures.
struct Hasty;

impl ractor::Actor for Hasty {
    type Msg = ();
    type State = ();
    type Arguments = u64;

    fn pre_start(
        &self,
        _: ractor::ActorRef<()>,
        incarnation: u64,
    ) -> impl Future<Output = Result<(), ractor::ActorProcessingErr>> + Send {
        assert_ne!(incarnation, 2, "before the start");
        async { Ok(()) }
    }

    fn handle(
        &self,
        _: ractor::ActorRef<()>,
        (): (),
        (): &mut (),
    ) -> impl Future<Output = Result<(), ractor::ActorProcessingErr>> + Send {
        panic!("before the message");
        #[expect(unreachable_code, reason = "gives the type of the future")]
        async {
            Ok(())
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_before_a_callback_returns_its_future_is_caught_and_named_like_any_other() {
    let address = supervision::Address::new("hasty");
    let hasty = ChildSpec::actor("hasty", &address, |context| (Hasty, context.incarnation())).backoff(Backoff::NONE);
    let tree = start(SupervisorSpec::new("root", Strategy::OneForOne).intensity(generous()).child(hasty)).await;
    address.try_send(()).unwrap();
    settle().await;
    let causes: Vec<String> =
        tree.snapshot().find("hasty").unwrap().history.iter().map(|incident| incident.exit.to_string()).collect();
    let second = "panicked: assertion `left != right` failed: before the start\n  left: 2\n right: 2";
    assert_eq!(causes, ["panicked: before the message", second]);
    assert_eq!(status(&tree, "hasty"), Status::Up);
}
