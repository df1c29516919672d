//! A running child, whatever it is made of: what can be done to it, and how its end is learned.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use ractor::ActorCell;
use tokio_util::sync::CancellationToken;

use crate::{ChildContext, ChildStop, Exit, supervisor::SupervisorControl, task::TaskStarter};

/// How a child is brought to life. Implemented once for each kind of child.
pub(crate) trait StartChild: Send + Sync {
    /// Starts one incarnation. The future resolves when the child serves, and it ends early, leaving nothing behind, when
    /// the context is cancelled.
    fn start(&self, context: ChildContext) -> BoxFuture<'static, Result<Started, StartFailure>>;

    /// The task starter behind this, if it is one.
    fn as_task(&self) -> Option<&TaskStarter> {
        None
    }
}

/// A child that serves.
pub(crate) struct Started {
    pub(crate) process: Process,
    /// Resolves when it is gone *and its state is dropped*.
    pub(crate) ended: BoxFuture<'static, Ended>,
}

/// Why there is no child.
#[derive(Debug)]
pub(crate) enum StartFailure {
    /// It declined to start, which is not an error.
    Ignored,
    /// It was cancelled while it started.
    Cancelled,
    /// It failed; what it had started below itself is stopped again.
    Failed(Exit),
}

/// The end of one incarnation.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) exit: Exit,
    /// A supervisor's children, in stop order.
    pub(crate) below: Vec<ChildStop>,
    /// Tasks of the child that could not be ended.
    pub(crate) leaked_tasks: Vec<String>,
}

impl From<Exit> for Ended {
    fn from(exit: Exit) -> Self {
        Self { exit, below: Vec::new(), leaked_tasks: Vec::new() }
    }
}

/// The handle by which a supervisor acts on a running child.
pub(crate) enum Process {
    Actor { cell: ActorCell, words: Arc<LastWords> },
    Task { controls: TaskControls },
    Supervisor(SupervisorControl),
}

/// What a running task listens to.
#[derive(Clone)]
pub(crate) struct TaskControls {
    pub(crate) kill: CancellationToken,
    pub(crate) inject_panic: CancellationToken,
}

impl Process {
    /// Ends it at its next await.
    pub(crate) fn kill(&self) {
        match self {
            Self::Actor { cell, .. } => cell.kill(),
            Self::Task { controls } => controls.kill.cancel(),
            Self::Supervisor(control) => control.kill(),
        }
    }

    /// Makes it panic at the next message (actor), await (task) or event (supervisor): a fault for drills.
    pub(crate) fn inject_panic(&self) {
        match self {
            Self::Actor { cell, words } => {
                words.ask_to_panic();
                cell.stop(None);
            }
            Self::Task { controls } => controls.inject_panic.cancel(),
            Self::Supervisor(control) => control.inject_panic(),
        }
    }
}

/// A slot through which an incarnation says how it ended: ractor's own events lose most of it.
#[derive(Debug, Default)]
pub(crate) struct LastWords(Mutex<Words>);

#[derive(Debug, Default)]
struct Words {
    exit: Option<Exit>,
    panic_asked: bool,
}

impl LastWords {
    /// The first word counts.
    pub(crate) fn say(&self, exit: Exit) {
        self.lock().exit.get_or_insert(exit);
    }

    /// What was said; nothing if it was killed.
    pub(crate) fn take(&self) -> Option<Exit> {
        self.lock().exit.take()
    }

    pub(crate) fn ask_to_panic(&self) {
        self.lock().panic_asked = true;
    }

    pub(crate) fn is_asked_to_panic(&self) -> bool {
        self.lock().panic_asked
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Words> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
