//! The battery itself: it passes what behaves, and catches what does not.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{future::Future, time::Duration};

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use supervision::{
    Address, ChildContext, ChildSpec,
    battery::{self, Check, Outcome, Report, Subject},
};

/// How an actor misbehaves.
#[derive(Clone, Copy, PartialEq)]
enum Vice {
    None,
    BlocksPostStop,
    LeaksATask,
    /// A task of its group that does not listen to the group's token.
    HasADeafTask,
    NeverStarts,
    PanicsInDrop,
    /// A timer of ractor's, which goes on without its actor.
    LeavesATimer,
}

struct Counter(Vice);

enum Message {
    Add,
    Total(RpcReplyPort<u64>),
}

struct Held {
    total: u64,
    vice: Vice,
}

impl Drop for Held {
    fn drop(&mut self) {
        assert!(self.vice != Vice::PanicsInDrop, "broken in drop");
    }
}

impl Actor for Counter {
    type Msg = Message;
    type State = Held;
    type Arguments = ChildContext;

    async fn pre_start(&self, myself: ActorRef<Message>, context: ChildContext) -> Result<Held, ActorProcessingErr> {
        let beat = context.heartbeat("count", Duration::from_secs(1));
        let ended = context.tasks().token();
        context.tasks().spawn("beat", async move {
            beat.beat();
            ended.cancelled().await;
        });
        match self.0 {
            Vice::NeverStarts => std::future::pending().await,
            #[expect(clippy::disallowed_methods, reason = "the vice under test")]
            Vice::LeavesATimer => drop(myself.send_after(Duration::from_secs(3600), || Message::Add)),
            #[expect(clippy::disallowed_methods, reason = "the vice under test")]
            Vice::LeaksATask => drop(tokio::spawn(std::future::pending::<()>())),
            Vice::HasADeafTask => context.tasks().spawn("deaf", std::future::pending()),
            Vice::None | Vice::BlocksPostStop | Vice::PanicsInDrop => {}
        }
        Ok(Held { total: 0, vice: self.0 })
    }

    async fn handle(&self, _: ActorRef<Message>, message: Message, held: &mut Held) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Add => held.total += 1,
            Message::Total(reply) => drop(reply.send(held.total)),
        }
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<Message>, _: &mut Held) -> Result<(), ActorProcessingErr> {
        if self.0 == Vice::BlocksPostStop {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

fn counter(vice: Vice) -> impl Fn() -> Subject {
    move || {
        let counter = Address::with_capacity("counter", 64);
        let child = ChildSpec::actor("counter", &counter, move |context| (Counter(vice), context));
        Subject::new(child).message(&counter, || Message::Add).call(&counter, Message::Total)
    }
}

fn task<F: Future<Output = ()> + Send + 'static>(run: fn(ChildContext) -> F) -> ChildSpec {
    ChildSpec::task("worker", move |context| async move {
        run(context).await;
        Ok(())
    })
}

fn failed(report: &Report) -> Vec<Check> {
    report.failed().map(|check| check.check).collect()
}

fn skipped(report: &Report) -> Vec<Check> {
    report.skipped().map(|check| check.check).collect()
}

fn why(report: &Report, check: Check) -> String {
    match report.checks.iter().find(|each| each.check == check).map(|each| each.outcome.clone()) {
        Some(Outcome::Failed(why) | Outcome::Skipped(why)) => why,
        _ => "passed".to_owned(),
    }
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_behaves_passes_all_checks() {
    let report = battery::run(counter(Vice::None)).await;
    assert_eq!(skipped(&report), [Check::PanicInTask]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_actor_that_behaves_passes_on_real_threads_too() {
    battery::run(counter(Vice::None)).await;
}

#[tokio::test(start_paused = true)]
async fn an_actor_without_messages_is_not_flooded_and_says_so() {
    let counter = || ChildSpec::actor("counter", &Address::new("counter"), |context| (Counter(Vice::None), context));
    let report = battery::run(counter).await;
    assert!(why(&report, Check::PanicInHandle).contains("give it one"));
    assert!(why(&report, Check::Flooded).contains("no message"));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_behaves_passes_whether_it_says_that_it_is_ready_or_not() {
    let report = battery::run(|| task(|context| async move { context.cancelled().cancelled().await })).await;
    assert_eq!(skipped(&report).len(), 7, "{report}");
    let ready = |context: ChildContext| async move {
        context.ready();
        context.cancelled().cancelled().await;
    };
    let report = battery::run(|| task(ready).start_when_ready()).await;
    assert_eq!(why(&report, Check::StoppedWhileItStarts), "passed");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_hears_no_stop_is_caught() {
    let report = battery::examine(|| task(|_| std::future::pending())).await;
    let polite = [Check::StartsAndStops, Check::StoppedTwice, Check::StoppedByHandAndStarted, Check::Killed];
    assert!(polite.iter().all(|check| failed(&report).contains(check)), "{report}");
    assert!(!failed(&report).contains(&Check::HangsAtItsStop), "{report}");
}

#[tokio::test(start_paused = true)]
async fn a_post_stop_that_outlives_the_budget_is_caught() {
    let report = battery::examine(counter(Vice::BlocksPostStop)).await;
    assert!(why(&report, Check::StartsAndStops).contains("its stop is reported as Killed"), "{report}");
    let unaffected =
        [Check::StoppedWhileItStarts, Check::PanicAtFirstStart, Check::HangsAtItsStop, Check::HangsInPostStop];
    assert!(unaffected.iter().all(|check| !failed(&report).contains(check)), "{report}");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_outlives_its_actor_is_caught() {
    let report = battery::examine(counter(Vice::LeaksATask)).await;
    assert!(why(&report, Check::StartsAndStops).starts_with("1 tasks are left on the runtime"), "{report}");
    // Six incarnations, six tasks.
    assert!(why(&report, Check::KilledAgainAndAgain).starts_with("6 tasks are left"), "{report}");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_keeps_the_next_start_waiting_is_caught() {
    let report = battery::examine(counter(Vice::HasADeafTask)).await;
    assert!(why(&report, Check::Killed).contains("did not hear that it had ended"), "{report}");
    assert!(!failed(&report).contains(&Check::PanicAtFirstStart), "{report}");
}

#[tokio::test(start_paused = true)]
async fn a_timer_that_outlives_its_actor_is_caught() {
    let report = battery::examine(counter(Vice::LeavesATimer)).await;
    assert!(why(&report, Check::StartsAndStops).starts_with("1 tasks are left on the runtime"), "{report}");
}

#[tokio::test(start_paused = true)]
async fn a_child_that_never_starts_is_caught_once() {
    let report = battery::examine(counter(Vice::NeverStarts)).await;
    assert_eq!(failed(&report), [Check::StartsAndStops], "{report}");
    assert!(why(&report, Check::StartsAndStops).contains("did not start within its budget"), "{report}");
    assert_eq!(why(&report, Check::Killed), "it does not start");
}

#[tokio::test(start_paused = true)]
async fn a_state_that_panics_when_it_is_dropped_is_caught() {
    let report = battery::examine(counter(Vice::PanicsInDrop)).await;
    assert!(why(&report, Check::StartsAndStops).ends_with("; panicked in drop: broken in drop"), "{report}");
    assert_eq!(why(&report, Check::HangsInPostStop), "panicked in drop: broken in drop");
    assert!(!failed(&report).contains(&Check::PanicAtFirstStart), "{report}");
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "FAILED   starts and stops: its stop is reported as Killed")]
async fn one_run_tells_all_that_failed() {
    battery::run(counter(Vice::BlocksPostStop)).await;
}
