#![doc = include_str!("../docs/contract.md")]
//! ```
#![doc = include_str!("../docs/examples/counter.rs")]
//! ```
#![doc = include_str!("../docs/first.md")]
#![doc = include_str!("../docs/strategies.md")]
#![doc = include_str!("../docs/rules.md")]
#![doc = include_str!("../docs/panics.md")]
#![doc = include_str!("../docs/addresses.md")]
#![doc = include_str!("../docs/tasks.md")]
//! ```
//! # use std::time::Duration;
//! # use supervision::ChildSpec;
#![doc = include_str!("../docs/examples/sweeper.rs")]
//! ```
#![doc = include_str!("../docs/server.md")]
#![doc = include_str!("../docs/operation.md")]

#[cfg(panic = "abort")]
compile_error!("supervision restarts what panics; build with panic = \"unwind\"");

mod activity;
mod actor;
mod address;
mod answer;
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

#[cfg(doc)]
#[doc = include_str!("../docs/coming-from.md")]
pub mod coming_from {}

pub use activity::Busy;
pub use address::{Address, DEFAULT_CAPACITY, MailboxSnapshot};
pub use answer::{HandedOver, OperationError, StartOutcome};
pub use backoff::Backoff;
pub use context::ChildContext;
pub use dead_letter::{DeadLetter, LossReason};
pub use event::{Event, EventKind};
pub use exit::{BoxError, Exit, Ignore, Orderly, StuckIn};
pub use guard::{GuardSite, Panicked, blocking, crash_process, guard};
pub use heartbeat::{BeatState, Heartbeat, HeartbeatSnapshot, Heartbeats, Protected, STALE_AFTER_INTERVALS};
pub use intensity::Intensity;
pub use node::{Counts, Incident, NodeSnapshot, Status, TaskCount};
pub use path::Path;
pub use report::{ChildStop, StopOutcome, StopReport};
pub use send_error::{CallError, SendError};
pub use spec::{
    AutoShutdown, ChildSpec, FirstStart, GiveUpAs, GroupRestart, Kind, OnGiveUp, OnStuck, Restart, Shutdown, SpecFault,
    SpecSummary, Strategy, SupervisorSpec, Traced,
};
pub use task_group::{Errand, TaskGroup};
pub use telemetry::{
    ensure, ensure_eq,
    panic::{Policy, install_hook},
    unreachable_state,
};
pub use tree::{StartError, Tree, TreeEnded, TreeOptions};
pub use watchdog::{NotYielding, Watchdog, WatchdogError, WatchdogSettings};
