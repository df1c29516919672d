//! A running child, whatever it is made of: what can be done to it, and how its end is learned.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use ractor::ActorCell;
use tokio_util::sync::CancellationToken;

use crate::{ChildContext, ChildStop, Exit, Path, StopOutcome, supervisor::SupervisorControl, task::TaskStarter};

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
    /// It was cancelled while it started, and has stopped what it had started.
    Cancelled {
        /// A supervisor's children, in stop order.
        below: Vec<ChildStop>,
    },
    /// It failed; what it had started below itself is stopped again.
    Failed(Exit),
    /// It failed, and some of what it had started below itself could not be stopped.
    Leaked(Ended),
}

impl StartFailure {
    /// The same, where these tasks could not be ended.
    pub(crate) fn beside(self, leaked_tasks: Vec<String>) -> Self {
        if leaked_tasks.is_empty() {
            return self;
        }
        let exit = match self {
            Self::Ignored => Exit::error("declined to start, and left tasks behind"),
            Self::Cancelled { .. } => Exit::Shutdown,
            Self::Failed(exit) | Self::Leaked(Ended { exit, .. }) => exit,
        };
        Self::Leaked(Ended { leaked_tasks, ..exit.into() })
    }
}

impl From<Ended> for StartFailure {
    fn from(ended: Ended) -> Self {
        if ended.leaves_something() { Self::Leaked(ended) } else { Self::Failed(ended.exit) }
    }
}

/// The end of one incarnation.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) exit: Exit,
    /// A supervisor's children, in stop order.
    pub(crate) below: Vec<ChildStop>,
    /// What stopping them took.
    pub(crate) stop_took: Duration,
    /// It is a task that declined to start.
    pub(crate) ignored: bool,
    /// Tasks of the child that could not be ended.
    pub(crate) leaked_tasks: Vec<String>,
}

impl Ended {
    /// True if something of it still runs: nothing of the kind may be started beside it.
    pub(crate) fn leaves_something(&self) -> bool {
        !self.leaked_tasks.is_empty() || self.below.iter().any(|child| child.outcome == StopOutcome::Leaked)
    }
}

impl From<Exit> for Ended {
    fn from(exit: Exit) -> Self {
        Self { exit, below: Vec::new(), stop_took: Duration::ZERO, ignored: false, leaked_tasks: Vec::new() }
    }
}

/// The handle by which a supervisor acts on a running child.
pub(crate) enum Process {
    Actor { cell: ActorCell, words: Arc<LastWords> },
    Task { controls: TaskControls },
    Supervisor(SupervisorControl),
}

/// What a running task listens to.
#[derive(Clone, Default)]
pub(crate) struct TaskControls {
    pub(crate) kill: CancellationToken,
    pub(crate) drill: DrillOrder,
}

/// A fault that is brought about on purpose, to see what happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drill {
    /// It panics.
    Panic,
    /// It stands still in the middle of its work, and hears nothing any more.
    Hang,
    /// It keeps its thread for so long, during which nothing can end it, and panics.
    Block(Duration),
}

/// An order to a running child to bring about a fault. Only the first one counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct DrillOrder(Arc<(OnceLock<Drill>, CancellationToken)>);

impl DrillOrder {
    pub(crate) fn give(&self, drill: Drill) {
        // Whoever panics or hangs already does nothing else.
        let _ = self.0.0.set(drill);
        self.0.1.cancel();
    }

    /// Waits for the order.
    pub(crate) async fn given(&self) {
        self.0.1.cancelled().await;
    }

    /// Carries the order out.
    pub(crate) async fn carry_out(&self, who: &Path) {
        self.0.0.get().unwrap_or(&Drill::Hang).carry_out(who).await;
    }
}

impl Drill {
    /// None of them ends well.
    #[expect(clippy::disallowed_methods, reason = "to block the thread is what was asked for")]
    pub(crate) async fn carry_out(self, who: &Path) {
        match self {
            Self::Panic => panic!("injected panic: {who} was asked to"),
            Self::Block(time) => {
                std::thread::sleep(time);
                panic!("injected block: {who} has kept its thread for {time:?}")
            }
            Self::Hang => std::future::pending().await,
        }
    }
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

    /// Brings about a fault: at once in a task and in a supervisor, in an actor as soon as it has handled its message.
    pub(crate) fn drill(&self, drill: Drill) {
        match self {
            Self::Actor { cell, words } => {
                // Whoever panics or hangs already does nothing else.
                let _ = words.drill.set(drill);
                // Wakes it; the callback carries out the order instead of stopping.
                cell.stop(None);
            }
            Self::Task { controls } => controls.drill.give(drill),
            Self::Supervisor(control) => control.drill(drill),
        }
    }
}

/// A slot through which an incarnation says how it ended: ractor's own events lose most of it.
#[derive(Debug, Default)]
pub(crate) struct LastWords {
    exit: Mutex<Option<Exit>>,
    /// What it does instead of stopping.
    pub(crate) drill: OnceLock<Drill>,
}

impl LastWords {
    /// The first word counts.
    pub(crate) fn say(&self, exit: Exit) {
        self.lock().get_or_insert(exit);
    }

    /// What was said; nothing if it was killed.
    pub(crate) fn take(&self) -> Option<Exit> {
        self.lock().take()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Exit>> {
        self.exit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
