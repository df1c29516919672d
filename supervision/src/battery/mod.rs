//! The conformance battery: one line in a child's tests puts it through all that a supervisor and bad luck do to it.
//!
//! ```
//! use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
//! use supervision::{Address, ChildSpec, battery::{self, Subject}};
//!
//! struct Counter;
//!
//! enum Message {
//!     Add(u64),
//!     Total(RpcReplyPort<u64>),
//! }
//!
//! impl Actor for Counter {
//!     type Msg = Message;
//!     type State = u64;
//!     type Arguments = ();
//!
//!     async fn pre_start(&self, _: ActorRef<Message>, (): ()) -> Result<u64, ActorProcessingErr> {
//!         Ok(0)
//!     }
//!
//!     async fn handle(&self, _: ActorRef<Message>, message: Message, total: &mut u64) -> Result<(), ActorProcessingErr> {
//!         match message {
//!             Message::Add(n) => *total += n,
//!             Message::Total(reply) => drop(reply.send(*total)),
//!         }
//!         Ok(())
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! battery::run(|| {
//!     let counter = Address::new("counter");
//!     let child = ChildSpec::actor("counter", &counter, |_context| (Counter, ()));
//!     Subject::new(child).message(&counter, || Message::Add(1)).call(&counter, Message::Total)
//! })
//! .await;
//! # }
//! ```
//!
//! A child without an address of its own, or a task, is tested as it is: `battery::run(|| sweeper(&store)).await`. What the
//! closure makes is used for one check; what it shares between its calls should be sound whatever happens to the child.
//!
//! Each check runs the child alone under a supervisor, always restarted, without backoff; its budgets are its own but where
//! the budget is what is tested. See [`Check`] for what is checked. After every one of them: each incarnation's state was
//! dropped before the next one began; no panic was recorded but the one that was brought about, and that one once, under its
//! phase; its heartbeats have ended, the tasks of its [`TaskGroup`](crate::TaskGroup) ended when they were asked to, and the runtime has no more tasks than
//! before.
//!
//! # What it cannot see
//!
//! - Threads, `spawn_blocking`, and tasks on another runtime: only tasks of the runtime that the battery runs on are counted.
//!   Therefore it must have that runtime for itself, as each `#[tokio::test]` has.
//! - State that is not in the actor's `State`, nor in the future of the task, such as what `make` keeps.
//! - A handler that blocks its thread: the battery would be blocked with it, or wait in vain.
//! - What the child does wrong in its work.
//!
//! The feature `battery` makes every callback look for a fault: enable it in `dev-dependencies` only.

mod check;
mod probe;
mod report;
mod stand;
mod subject;
mod trial;

pub use check::Check;
pub(crate) use probe::Probe;
pub use report::{CheckReport, Outcome, Report};
pub use subject::Subject;

/// Puts the child that `make` makes through every check. The report is for those who want to know what was skipped.
///
/// # Panics
/// If any check failed: with all that failed.
pub async fn run<S: Into<Subject>>(make: impl Fn() -> S) -> Report {
    let report = examine(make).await;
    assert!(report.passed(), "{report}");
    report
}

/// As [`run`], but only reports.
pub async fn examine<S: Into<Subject>>(make: impl Fn() -> S) -> Report {
    telemetry::panic::install_hook();
    let mut checks = Vec::new();
    for check in Check::ALL {
        let starts = checks.first().is_none_or(|first: &CheckReport| !first.outcome.is_start_failure());
        let outcome = match starts {
            true => stand::carry_out(check, &make).await,
            false => Outcome::Skipped("it does not start".to_owned()),
        };
        checks.push(CheckReport { check, outcome });
    }
    Report { checks }
}
