//! One child, as its supervisor sees it.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::time::delay_queue;
use tracing::Span;

use super::plan::PlanId;
use crate::{
    ChildContext, ChildSpec, Exit, LossReason, Path, Status, hold::Hold, intensity::RestartWindow, node::Node,
    process::Process,
};

/// One child.
pub(super) struct Slot {
    pub(super) spec: Arc<ChildSpec>,
    pub(super) node: Arc<Node>,
    pub(super) state: State,
    /// The process of the running incarnation, or of the leaked one.
    pub(super) process: Option<Process>,
    /// What makes its address its own, from its first start on. A start that outlives the slot holds it, too.
    pub(super) hold: Option<Arc<Hold>>,
    /// The plan that waits for this child.
    pub(super) plan: Option<PlanId>,
    pub(super) timer: Option<delay_queue::Key>,
    /// Added at run time, not declared.
    pub(super) is_added: bool,
    /// The context of the latest incarnation, through which it is asked to stop, and a supervisor that is starting hears
    /// that it must hurry.
    pub(super) context: Option<ChildContext>,
    /// Why it is started again as soon as it can be: its last attempt failed, or it was stuck and has leaked.
    pub(super) comes_back: Option<Exit>,
    /// It has leaked, and an operator asked it to stop.
    pub(super) is_unwanted: bool,
    /// Consecutive restarts without a good run between them.
    pub(super) attempt: u32,
    pub(super) window: Option<Box<RestartWindow>>,
}

/// What the supervisor knows of a child. [`Status`] is its public face.
#[derive(Debug)]
pub(super) enum State {
    Down,
    Starting {
        since: Instant,
    },
    Up {
        since: Instant,
    },
    /// It ended by itself while the supervisor was busy; this is how.
    Exited {
        exit: Exit,
        uptime: Duration,
    },
    Waiting,
    Stopping(Stopping),
    Leaked,
}

/// A stop in progress.
#[derive(Debug)]
pub(super) struct Stopping {
    pub(super) since: Instant,
    pub(super) phase: StopPhase,
    pub(super) span: Span,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StopPhase {
    /// Asked, its budget runs.
    Asked,
    /// Killed at once, as its spec says.
    BrutallyKilled,
    /// Outlived its budget and was killed; the grace runs.
    Killed,
}

impl Slot {
    pub(super) fn path(&self) -> &Path {
        &self.node.identity.path
    }

    pub(super) fn incarnation(&self) -> u64 {
        self.node.data().incarnation
    }

    /// Asks the latest incarnation to stop.
    pub(super) fn cancel(&self) {
        if let Some(context) = &self.context {
            context.cancel();
        }
    }

    /// True if there is, or may be, a process.
    pub(super) fn is_alive(&self) -> bool {
        matches!(self.state, State::Starting { .. } | State::Up { .. } | State::Stopping(_) | State::Leaked)
    }

    /// Sets the state and its public face.
    pub(super) fn become_(&mut self, state: State, status: Status) {
        if !matches!(state, State::Waiting | State::Leaked) {
            (self.comes_back, self.is_unwanted) = (None, false);
        }
        self.state = state;
        let mut data = self.node.data();
        data.set(status);
        data.stuck = None;
    }

    /// Tells the address that no incarnation takes messages until `due`, or at all, and why.
    pub(super) fn unavailable(&self, due: Result<Instant, LossReason>) {
        // An address that is another child's is not told.
        match (self.spec.availability.as_ref().filter(|_| self.hold.is_some()), due) {
            (Some(address), Ok(due)) => address.restarting(due),
            (Some(address), Err(reason)) => address.down(reason),
            (None, _) => {}
        }
    }
}
