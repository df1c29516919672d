//! The running tree, as its owner holds it.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture, future::Shared};
use tokio::{
    sync::{broadcast, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::Span;

use crate::{
    ChildContext, ChildSpec, Counts, Event, Exit, Heartbeats, NodeSnapshot, OperationError, Path, SpecFault,
    SpecSummary, StartOutcome, StopReport, SupervisorSpec, TaskCount,
    context::Identity,
    node::{Node, Status},
    process::{Drill, Ended, Process, StartChild, StartFailure},
    supervisor::{Answer, Operation, Request, SupervisorControl, SupervisorStarter},
};

/// Events that a subscriber may lag behind before it misses some.
const EVENTS_MAX: usize = 1024;

/// What an operation may take: the largest stop budget of a child, and its start.
const OPERATION_DEADLINE: Duration = Duration::from_secs(60);

/// A running tree of supervisors. Cheap to clone. It goes on when all clones are gone, and then cannot be stopped any more:
/// keep one.
#[derive(Clone)]
pub struct Tree(Arc<Inner>);

struct Inner {
    node: Arc<Node>,
    shared: Arc<TreeShared>,
    control: SupervisorControl,
    ended: Shared<BoxFuture<'static, Arc<Outcome>>>,
    stop_began: Mutex<Option<Instant>>,
}

#[derive(Debug)]
struct Outcome {
    exit: Exit,
    report: StopReport,
}

/// What all supervisors of a tree share.
pub(crate) struct TreeShared {
    pub(crate) heartbeats: Heartbeats,
    events: broadcast::Sender<Event>,
    observer: Option<Box<Observer>>,
}

type Observer = dyn Fn(&Event) + Send + Sync;

impl TreeShared {
    pub(crate) fn emit(&self, event: Event) {
        if let Some(observer) = &self.observer
            && let Err(panic) = telemetry::panic::catch_sync(|| observer(&event))
        {
            tracing::error!(message = %panic.message, "an observer of the tree panicked");
        }
        // Nobody need listen.
        let _ = self.events.send(event);
    }
}

impl fmt::Debug for TreeShared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TreeShared").field("heartbeats", &self.heartbeats).finish_non_exhaustive()
    }
}

/// How a tree is started, see [`Tree::options`].
#[derive(Default)]
pub struct TreeOptions {
    heartbeats: Heartbeats,
    cancelled: CancellationToken,
    observer: Option<Box<Observer>>,
}

/// Why a tree did not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The specs contradict themselves; nothing was started.
    #[error("{}", SpecFault::list(.0))]
    Unsound(Vec<SpecFault>),
    /// A child did not start; those before it are stopped again.
    #[error("{path} {cause}")]
    Child {
        /// The deepest child that failed.
        path: Path,
        /// How.
        cause: Exit,
    },
    /// It was told to stop before all children had started.
    #[error("told to stop before the start was complete")]
    Cancelled,
}

/// The tree ended by itself.
#[derive(Clone, Debug)]
pub struct TreeEnded {
    /// Why: usually [`Exit::GaveUp`], with the child.
    pub exit: Exit,
    /// What that did to the others.
    pub report: StopReport,
}

impl Tree {
    /// Checks all specs, then starts all children in order. The spans of the starts are children of the current span.
    ///
    /// # Errors
    /// Every contradiction in the specs, or the first child that did not start; then nothing is left running.
    pub async fn start(spec: SupervisorSpec, heartbeats: Heartbeats) -> Result<Self, StartError> {
        Self::options().heartbeats(heartbeats).start(spec).await
    }

    /// As [`Tree::start`], with more to say.
    pub fn options() -> TreeOptions {
        TreeOptions::default()
    }

    async fn start_with(spec: SupervisorSpec, options: TreeOptions) -> Result<Self, StartError> {
        spec.check().map_err(StartError::Unsound)?;
        let TreeOptions { heartbeats, cancelled, observer } = options;
        let shared = Arc::new(TreeShared { heartbeats, events: broadcast::Sender::new(EVENTS_MAX), observer });
        let identity = Identity { path: Path::root(), label: "root".into() };
        identity.bear_counters();
        let node = Node::new(identity, &ChildSpec::supervisor_shell(&spec), None);
        node.data().incarnation = 1;
        node.data().set(Status::Starting);
        let context = ChildContext::new(node.clone(), shared.clone(), 1, cancelled);
        let started = SupervisorStarter::new(move |_| Ok(spec.clone())).start(context).await;
        let (control, ended) = match started {
            Ok(started) => match started.process {
                Process::Supervisor(control) => (control, started.ended),
                Process::Actor { .. } | Process::Task { .. } => return Err(not_started(Exit::Killed)),
            },
            Err(StartFailure::Failed(exit) | StartFailure::Leaked(Ended { exit, .. })) => {
                return Err(not_started(exit));
            }
            Err(StartFailure::Ignored | StartFailure::Cancelled { .. }) => return Err(StartError::Cancelled),
        };
        // It may have ended already.
        let mut data = node.data();
        if data.status == Status::Starting {
            data.set(Status::Up);
        }
        drop(data);
        let root = node.clone();
        let ended = ended
            .map(move |ended| {
                root.data().set(Status::Down);
                let report = StopReport { children: ended.below, took: ended.stop_took };
                Arc::new(Outcome { exit: ended.exit, report })
            })
            .boxed()
            .shared();
        Ok(Self(Arc::new(Inner { node, shared, control, ended, stop_began: Mutex::new(None) })))
    }

    /// Every node, as of now. It does not wait for any supervisor.
    pub fn snapshot(&self) -> NodeSnapshot {
        self.0.node.snapshot()
    }

    /// The tasks that children have started and that have not ended, by path and name.
    pub fn tasks(&self) -> Vec<TaskCount> {
        self.0.node.tasks()
    }

    /// The spec in force of a child, defaults filled in; none for the root and for a path that is not there.
    pub fn spec_of(&self, path: impl Into<Path>) -> Option<SpecSummary> {
        let path = path.into();
        self.0.node.find(&path).filter(|_| !path.is_root()).map(|node| node.spec.clone())
    }

    /// Events from now on.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.0.shared.events.subscribe()
    }

    /// Every heartbeat of the tree.
    pub fn heartbeats(&self) -> &Heartbeats {
        &self.0.shared.heartbeats
    }

    /// Stops the child if it runs, forgets its failures and starts it.
    ///
    /// # Errors
    /// See [`OperationError`].
    pub async fn restart(&self, path: impl Into<Path>) -> Result<StartOutcome, OperationError> {
        self.operate(path.into(), Operation::Restart).await.map(StartOutcome::from)
    }

    /// Kills the child at its next await: it ends as [`Exit::Killed`], a failure, and its supervisor does what it does then.
    ///
    /// # Errors
    /// See [`OperationError`].
    pub async fn kill_child(&self, path: impl Into<Path>) -> Result<(), OperationError> {
        self.operate(path.into(), Operation::Kill).await.map(drop)
    }

    /// Stops the child, until [`Tree::start_child`].
    ///
    /// # Errors
    /// See [`OperationError`].
    pub async fn stop_child(&self, path: impl Into<Path>) -> Result<(), OperationError> {
        self.operate(path.into(), Operation::Stop).await.map(drop)
    }

    /// Starts a child that is not running.
    ///
    /// # Errors
    /// See [`OperationError`].
    pub async fn start_child(&self, path: impl Into<Path>) -> Result<StartOutcome, OperationError> {
        self.operate(path.into(), Operation::Start).await.map(StartOutcome::from)
    }

    /// Forgets a child that is not running.
    ///
    /// # Errors
    /// See [`OperationError`].
    pub async fn delete_child(&self, path: impl Into<Path>) -> Result<(), OperationError> {
        self.operate(path.into(), Operation::Delete).await.map(drop)
    }

    /// Adds a child to the supervisor at `path`, last in start order, and starts it.
    ///
    /// # Errors
    /// See [`OperationError`]; if it does not start, it is not kept.
    pub async fn add_child(&self, path: impl Into<Path>, spec: ChildSpec) -> Result<StartOutcome, OperationError> {
        self.operate(path.into(), Operation::Add(Box::new(spec))).await.map(StartOutcome::from)
    }

    /// Counts the direct children of a supervisor, in turn with all else it is asked: as [`NodeSnapshot::counts`], which does
    /// not wait for it.
    ///
    /// # Errors
    /// See [`OperationError`].
    pub async fn count_children(&self, path: impl Into<Path>) -> Result<Counts, OperationError> {
        match self.operate(path.into(), Operation::Count).await? {
            Answer::Counted(counts) => Ok(counts),
            Answer::Done | Answer::Started { .. } => Err(OperationError::NotFound),
        }
    }

    /// Makes a child panic, whatever it is made of: a drill.
    ///
    /// # Errors
    /// See [`OperationError`].
    pub async fn inject_panic(&self, path: impl Into<Path>) -> Result<(), OperationError> {
        self.operate(path.into(), Operation::Drill(Drill::Panic)).await.map(drop)
    }

    /// Makes a child stand still, deaf to everything but a kill: a drill.
    ///
    /// # Errors
    /// See [`OperationError`].
    pub async fn inject_hang(&self, path: impl Into<Path>) -> Result<(), OperationError> {
        self.operate(path.into(), Operation::Drill(Drill::Hang)).await.map(drop)
    }

    /// Makes a child keep its thread for `time` without yielding, and then panic: a drill. Meanwhile nothing can end it, and
    /// the [watchdog](Heartbeats::watch) says so.
    ///
    /// # Errors
    /// See [`OperationError`].
    pub async fn inject_block(&self, path: impl Into<Path>, time: Duration) -> Result<(), OperationError> {
        self.operate(path.into(), Operation::Drill(Drill::Block(time))).await.map(drop)
    }

    /// Waits until the tree has ended, by itself or because it was stopped.
    pub async fn ended(&self) -> TreeEnded {
        let outcome = self.0.ended.clone().await;
        TreeEnded { exit: outcome.exit.clone(), report: outcome.report.clone() }
    }

    /// Stops all children in exact reverse start order, each within its budget, and says how that went. Idempotent: a
    /// second call waits for the same stop. The spans of the stops are children of the current span.
    pub async fn stop(&self) -> StopReport {
        let began = *self.0.stop_began.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Instant::now);
        self.0.control.stop(None, Span::current());
        let report = self.0.ended.clone().await.report.clone();
        StopReport { took: began.elapsed(), ..report }
    }

    async fn operate(&self, path: Path, operation: Operation) -> Result<Answer, OperationError> {
        if let (true, Operation::Drill(Drill::Panic)) = (path.is_root(), &operation) {
            self.0.control.drill(Drill::Panic);
            return Ok(Answer::Done);
        }
        let (reply, answer) = oneshot::channel();
        let segments = path.ids().map(str::to_owned).collect();
        self.0.control.operate(Request { path: segments, operation, reply });
        match tokio::time::timeout(OPERATION_DEADLINE, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(OperationError::Stopping),
            Err(_) => Err(OperationError::Timeout),
        }
    }
}

impl TreeOptions {
    /// The registry of its heartbeats, where somebody else reads it too.
    pub fn heartbeats(self, heartbeats: Heartbeats) -> Self {
        Self { heartbeats, ..self }
    }

    /// If this fires before all children have started, those that have are stopped again, in order.
    pub fn cancelled_by(self, cancelled: CancellationToken) -> Self {
        Self { cancelled, ..self }
    }

    /// Called for each event, in the order in which they happen and before anything follows from them: it misses none, as a
    /// slow subscriber of [`Tree::events`] may. It runs inside the supervisor, and must neither wait nor take long.
    pub fn observer(self, observer: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        Self { observer: Some(Box::new(observer)), ..self }
    }

    /// Starts the tree, see [`Tree::start`].
    ///
    /// # Errors
    /// As [`Tree::start`], and [`StartError::Cancelled`].
    pub async fn start(self, spec: SupervisorSpec) -> Result<Tree, StartError> {
        Tree::start_with(spec, self).await
    }
}

impl fmt::Debug for TreeOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TreeOptions").field("heartbeats", &self.heartbeats).finish_non_exhaustive()
    }
}

/// The deepest child that failed, and its own cause.
fn not_started(exit: Exit) -> StartError {
    let (mut path, mut cause) = (Path::root(), exit);
    while let Exit::GaveUp { path: child, cause: inner } = cause {
        path = child;
        cause = *inner;
    }
    StartError::Child { path, cause }
}
