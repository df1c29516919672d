//! The running tree, as its owner holds it.

use std::{
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
    ChildContext, ChildSpec, Event, Exit, Heartbeats, Kind, NodeSnapshot, Path, SpecFault, StopReport, SupervisorSpec,
    context::Identity,
    node::{Node, Status},
    process::{Drill, Process, StartChild, StartFailure},
    supervisor::{Operation, Request, SupervisorControl, SupervisorStarter},
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
#[derive(Debug)]
pub(crate) struct TreeShared {
    pub(crate) heartbeats: Heartbeats,
    events: broadcast::Sender<Event>,
}

impl TreeShared {
    pub(crate) fn emit(&self, event: Event) {
        // Nobody need listen.
        let _ = self.events.send(event);
    }
}

/// Why a tree did not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The specs contradict themselves; nothing was started.
    #[error("the tree is not sound: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
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

/// Why an operation on a child was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OperationError {
    /// There is no such child.
    #[error("there is no such child")]
    NotFound,
    /// The root itself is stopped with [`Tree::stop`] only.
    #[error("the root is not operated on")]
    IsRoot,
    /// The child, or a supervisor above it, is not running.
    #[error("the child is not running")]
    NotRunning,
    /// The child is running, starting or waiting for its restart.
    #[error("the child is running")]
    AlreadyRunning,
    /// A child of that id exists.
    #[error("a child of that id exists")]
    AlreadyPresent,
    /// An earlier incarnation still runs and cannot be ended.
    #[error("an earlier incarnation of the child leaked and still runs")]
    Leaked,
    /// The supervisor is at its limit.
    #[error("the supervisor has its {max_children} children")]
    TooManyChildren {
        /// The limit.
        max_children: usize,
    },
    /// The spec contradicts itself or its supervisor.
    #[error("the spec is not sound: {reason}")]
    BadSpec {
        /// How.
        reason: String,
    },
    /// The child did not start; it stays down.
    #[error("the child {exit}")]
    StartFailed {
        /// Why.
        exit: Exit,
    },
    /// A later operation on the same child took its place.
    #[error("a later operation took its place")]
    Superseded,
    /// Too many operations wait.
    #[error("too many operations wait")]
    Busy,
    /// It was not carried out in time; it may still be.
    #[error("the operation is not complete after its deadline")]
    Timeout,
    /// The tree, or the part of it, is stopping.
    #[error("the supervisor is stopping")]
    Stopping,
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
        Self::start_unless(spec, heartbeats, CancellationToken::new()).await
    }

    /// As [`Tree::start`]; if `cancelled` fires first, what has started is stopped again, in order.
    ///
    /// # Errors
    /// As [`Tree::start`], and [`StartError::Cancelled`].
    pub async fn start_unless(
        spec: SupervisorSpec,
        heartbeats: Heartbeats,
        cancelled: CancellationToken,
    ) -> Result<Self, StartError> {
        spec.check().map_err(StartError::Unsound)?;
        let shared = Arc::new(TreeShared { heartbeats, events: broadcast::Sender::new(EVENTS_MAX) });
        let identity = Identity { path: Path::root(), label: "root".to_owned() };
        identity.bear_counters();
        let node = Node::new(identity, spec.id.clone(), Kind::Supervisor, false);
        node.data().incarnation = 1;
        node.data().set(Status::Starting);
        let context = ChildContext::new(node.clone(), shared.clone(), 1, cancelled);
        let started = SupervisorStarter::new(spec).start(context).await;
        let (control, ended) = match started {
            Ok(started) => match started.process {
                Process::Supervisor(control) => (control, started.ended),
                Process::Actor { .. } | Process::Task { .. } => return Err(not_started(Exit::Killed)),
            },
            Err(StartFailure::Failed(exit)) => return Err(not_started(exit)),
            Err(StartFailure::Ignored | StartFailure::Cancelled { .. }) => return Err(StartError::Cancelled),
        };
        node.data().set(Status::Up);
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
    pub async fn restart(&self, path: impl Into<Path>) -> Result<(), OperationError> {
        self.operate(path.into(), Operation::Restart).await
    }

    /// Stops the child, until [`Tree::start_child`].
    ///
    /// # Errors
    /// See [`OperationError`].
    pub async fn stop_child(&self, path: impl Into<Path>) -> Result<(), OperationError> {
        self.operate(path.into(), Operation::Stop).await
    }

    /// Starts a child that is not running.
    ///
    /// # Errors
    /// See [`OperationError`].
    pub async fn start_child(&self, path: impl Into<Path>) -> Result<(), OperationError> {
        self.operate(path.into(), Operation::Start).await
    }

    /// Forgets a child that is not running.
    ///
    /// # Errors
    /// See [`OperationError`].
    pub async fn delete_child(&self, path: impl Into<Path>) -> Result<(), OperationError> {
        self.operate(path.into(), Operation::Delete).await
    }

    /// Adds a child to the supervisor at `path`, last in start order, and starts it.
    ///
    /// # Errors
    /// See [`OperationError`]; if it does not start, it is not kept.
    pub async fn add_child(&self, path: impl Into<Path>, spec: ChildSpec) -> Result<(), OperationError> {
        self.operate(path.into(), Operation::Add(Box::new(spec))).await
    }

    /// Makes a child panic, whatever it is made of: a drill.
    ///
    /// # Errors
    /// See [`OperationError`].
    pub async fn inject_panic(&self, path: impl Into<Path>) -> Result<(), OperationError> {
        self.operate(path.into(), Operation::Drill(Drill::Panic)).await
    }

    /// Makes a child stand still, deaf to everything but a kill: a drill.
    ///
    /// # Errors
    /// See [`OperationError`].
    pub async fn inject_hang(&self, path: impl Into<Path>) -> Result<(), OperationError> {
        self.operate(path.into(), Operation::Drill(Drill::Hang)).await
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

    async fn operate(&self, path: Path, operation: Operation) -> Result<(), OperationError> {
        if let (true, Operation::Drill(Drill::Panic)) = (path.is_root(), &operation) {
            self.0.control.drill(Drill::Panic);
            return Ok(());
        }
        let (reply, answer) = oneshot::channel();
        let segments = path.as_str().split('.').filter(|id| !id.is_empty()).map(str::to_owned).collect();
        self.0.control.operate(Request { path: segments, operation, reply });
        match tokio::time::timeout(OPERATION_DEADLINE, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(OperationError::Stopping),
            Err(_) => Err(OperationError::Timeout),
        }
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
