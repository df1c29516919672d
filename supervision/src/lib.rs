//! A supervisor for [ractor](https://docs.rs/ractor) actors and plain futures that behaves as Erlang/OTP's does, and does
//! what OTP leaves out: backoff, stop budgets with a report, a visible waiting state, heartbeats, addresses that survive
//! restarts, and a full record of every panic.
//!
//! ```
//! use std::time::Duration;
//!
//! use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
//! use supervision::{Address, Backoff, ChildSpec, Heartbeats, Strategy, SupervisorSpec, Tree};
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
//!             Message::Add(n) => *total = total.checked_add(n).expect("a total that fits"),
//!             Message::Total(reply) => drop(reply.send(*total)),
//!         }
//!         Ok(())
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let counter = Address::new("counter");
//! let spec = SupervisorSpec::new("root", Strategy::OneForOne)
//!     .child(ChildSpec::actor("counter", &counter, |_context| (Counter, ())).backoff(Backoff::default()));
//! let tree = Tree::start(spec, Heartbeats::new()).await?;
//!
//! counter.try_send(Message::Add(7))?;
//! counter.try_send(Message::Add(u64::MAX))?; // panics
//! tokio::time::sleep(Duration::from_secs(2)).await; // waits for its backoff, and is back
//! assert_eq!(counter.call(Message::Total, Duration::from_secs(1)).await?, 0);
//! assert_eq!(tree.snapshot().find("counter").map(|node| node.incarnation), Some(2));
//!
//! assert!(tree.stop().await.is_clean());
//! # Ok(())
//! # }
//! ```
//!
//! # What it promises
//!
//! - **Start** is in order, each child within a start budget. If one fails at the first start, those before it are stopped
//!   in reverse, and the error names the path. The supervisor answers and can be stopped while a child starts.
//! - **Stop** is in exact reverse order, depth first, each child within its budget: ask, wait, kill, wait, else report as
//!   leaked. The same happens when a supervisor panics. The result is a [`StopReport`].
//! - **Restart** follows OTP's rules for [`Restart`], [`Strategy`] and [`Intensity`], after a [`Backoff`] that is 0 in OTP.
//!   Waiting is a [`Status`] with its due time; stop and operations interrupt it.
//! - **No overlap.** An incarnation starts only when the one before it is gone and its state is dropped.
//! - **Panics** are caught at every callback, in tasks and under [`guard`], and recorded exactly once by `telemetry`, with
//!   location, backtrace, phase, message type and the span they happened in. [`Policy`] says what follows, and when to
//!   panic at all. [`ensure!`] panics with the values it saw, which reach the incident, the span and the log.
//! - **What does not yield is seen.** Nothing in the process can end a callback that keeps its thread; a
//!   [watchdog](Heartbeats::watch) says which it is.
//! - **Nothing is lost in silence.** An [`Address`] gives a message back if its actor is restarting, down or full; a
//!   [kept mailbox](Address::keep_mailbox) outlives its incarnations; and what is lost all the same is counted, and told to
//!   [a hook](Address::on_dead_letter).
//!
//! # How an actor is tested
//!
//! `supervision::battery` (feature `battery`, for `dev-dependencies`) puts any actor or task through what a supervisor and bad
//! luck do to it, in one line of its tests: `battery::run(|| my_child()).await`.
//!
//! # Where it differs from OTP
//!
//! | here | OTP |
//! | --- | --- |
//! | a backoff between restarts ([`Backoff::NONE`] is OTP's) | none |
//! | a budget for each child as well ([`ChildSpec::intensity`]), and children that degrade ([`OnGiveUp`]) | one for all |
//! | giving up is a failure: also a transient supervisor is restarted | it ends with `shutdown`, which is orderly |
//! | what was stopped by hand, or finished, is not started with its group | it is |
//! | windows are exact | whole seconds |
//! | the supervisor answers while a child starts or waits | it is blocked |
//! | with one_for_one, children restart independently of each other | one after the other |
//!
//! # ractor's part
//!
//! Actors are plain [`ractor::Actor`] implementations, and everything of ractor works in them but its links: an actor here
//! has no ractor parent. Mailboxes are bounded at the [`Address`]. What an actor spawns belongs to
//! [`ChildContext::tasks`], or it would outlive the actor.

#[cfg(panic = "abort")]
compile_error!("supervision restarts what panics; build with panic = \"unwind\"");

mod activity;
mod actor;
mod address;
mod backoff;
#[cfg(feature = "battery")]
pub mod battery;
mod context;
mod dead_letter;
mod door;
mod event;
mod exit;
mod fault;
mod guard;
mod heartbeat;
mod hold;
mod intensity;
mod mailbox;
mod node;
mod path;
mod process;
mod report;
mod send_error;
mod spec;
mod supervised;
mod supervisor;
mod task;
mod task_group;
mod tree;
mod watchdog;

pub use activity::Busy;
pub use address::{Address, DEFAULT_CAPACITY};
pub use backoff::Backoff;
pub use context::ChildContext;
pub use dead_letter::{DeadLetter, LossReason};
pub use event::{Event, EventKind};
pub use exit::{BoxError, Exit, Ignore, Orderly, StuckIn};
pub use guard::{GuardSite, Panicked, blocking, crash_process, guard};
pub use heartbeat::{BeatState, Heartbeat, HeartbeatSnapshot, Heartbeats, Protected, STALE_AFTER_INTERVALS};
pub use intensity::Intensity;
pub use node::{Counts, Incident, NodeSnapshot, Status};
pub use path::Path;
pub use report::{ChildStop, StopOutcome, StopReport};
pub use send_error::{CallError, SendError};
pub use spec::{
    AutoShutdown, ChildSpec, FirstStart, GiveUpAs, GroupRestart, Kind, OnGiveUp, OnStuck, Restart, Shutdown, SpecFault,
    SpecSummary, Strategy, SupervisorSpec, Traced,
};
pub use task_group::TaskGroup;
pub use telemetry::{ensure, ensure_eq, panic::Policy, unreachable_state};
pub use tree::{HandedOver, OperationError, StartError, StartOutcome, Tree, TreeEnded, TreeOptions};
pub use watchdog::{NotYielding, Watchdog, WatchdogError, WatchdogSettings};
