//! The supervisor: a state machine whose handlers are synchronous, and a loop that feeds it.
//!
//! It is a plain task, not a ractor parent: ractor's own links kill children without `post_stop`, in no order. What it
//! does is written down as *plans* of steps (stop these, pause, start that), so that at any moment it can answer, be told
//! to stop, or abandon a plan. [`state`] and [`slot`] hold the data, [`plan`] the steps; [`start`], [`stop`], [`restart`]
//! and [`operate`] are one verb each; [`lookout`] finds children that are stuck, [`log_limit`] keeps a storm out of the log,
//! and [`drive`] is the loop.

mod drive;
mod log_limit;
mod lookout;
mod note;
mod operate;
mod plan;
mod restart;
mod slot;
mod start;
mod state;
mod stop;

use std::sync::Arc;

use futures_util::{FutureExt, future::BoxFuture};
use telemetry::panic::{CapturedPanic, PanicSite, Policy};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::Span;

use crate::{
    BoxError, ChildContext, ChildSpec, Counts, Exit, HandedOver, Ignore, OperationError, Status, StuckIn,
    SupervisorSpec,
    activity::shown,
    door,
    process::{Drill, DrillOrder, Ended, Process, StartChild, StartFailure, Started},
};
use state::Supervisor;

/// Operations that may wait for one supervisor.
const OPERATIONS_MAX: usize = 64;

/// Starts the incarnations of a supervisor that is itself a child.
pub(crate) struct SupervisorStarter {
    make: Box<Make>,
}

type Make = dyn Fn(ChildContext) -> Result<SupervisorSpec, BoxError> + Send + Sync;

impl SupervisorStarter {
    pub(crate) fn new(make: impl Fn(ChildContext) -> Result<SupervisorSpec, BoxError> + Send + Sync + 'static) -> Self {
        Self { make: Box::new(make) }
    }

    fn made(&self, context: &ChildContext) -> Result<SupervisorSpec, StartFailure> {
        match telemetry::panic::catch_sync(|| (self.make)(context.clone())) {
            Ok(Ok(spec)) => Ok(spec),
            Ok(Err(error)) if error.is::<Ignore>() => Err(StartFailure::Ignored),
            Ok(Err(error)) => Err(StartFailure::Failed(Exit::of_failure(error))),
            Err(captured) => Err(StartFailure::Failed(record_panic(context, "make", captured))),
        }
    }
}

impl StartChild for SupervisorStarter {
    fn start(&self, context: ChildContext) -> BoxFuture<'static, Result<Started, StartFailure>> {
        let made = self.made(&context);
        async move {
            let spec = made?;
            let cancelled = context.cancelled();
            let (started, is_started) = oneshot::channel();
            let (supervisor, control) = Supervisor::new(spec, context.clone(), started);
            context.publish(Some(control.clone()));
            let mut life = door::spawn(lives(supervisor, control.clone()));
            // Whoever drops this start half-way leaves no one behind who could stop what has started.
            let abandoned = StopOnDrop(Some(control.clone()));
            let result = tokio::select! {
                biased;
                Ok(()) = is_started => {
                    abandoned.keep();
                    Ok(Started { process: Process::Supervisor(control), ended: end_of(life).boxed() })
                }
                ended = &mut life => Err(ended.unwrap_or_else(|_| Exit::Killed.into()).into()),
                () = cancelled.cancelled() => {
                    control.stop(None, Span::none());
                    Err(StartFailure::Cancelled { below: end_of(life).await.below })
                }
            };
            context.publish(None);
            result
        }
        .boxed()
    }
}

/// Stops a supervisor whose starter has gone.
struct StopOnDrop(Option<SupervisorControl>);

impl StopOnDrop {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        if let Some(control) = self.0.take() {
            control.stop(None, Span::none());
        }
    }
}

async fn end_of(life: JoinHandle<Ended>) -> Ended {
    // A join error means that the runtime is going away: the loop's panics are caught.
    life.await.unwrap_or_else(|_| Exit::Killed.into())
}

/// The whole life of one supervisor, its polls shown to the watchdog like those of any child.
async fn lives(supervisor: Supervisor, control: SupervisorControl) -> Ended {
    let context = control.0.context.clone();
    let activity = context.heartbeats().activity(context.path(), "supervisor", None);
    let ended = shown(Some(activity), live(supervisor, control)).await;
    context.heartbeats().incarnation_ended(context.path());
    ended
}

/// Its loop, and if that fails, the ordered stop of its children all the same.
async fn live(mut supervisor: Supervisor, control: SupervisorControl) -> Ended {
    let interrupted = {
        let run = telemetry::panic::catch(supervisor.run());
        tokio::select! {
            biased;
            () = control.0.kill.cancelled() => Some(Exit::Killed),
            caught = run => caught.err().map(|captured| record_panic(&control.0.context, "supervise", captured)),
        }
    };
    let mut interrupted = interrupted;
    while let Some(exit) = interrupted.take() {
        let killed = exit == Exit::Killed;
        let stopping = telemetry::panic::catch(async {
            supervisor.interrupt(exit);
            supervisor.run().await;
        });
        let caught = tokio::select! {
            biased;
            () = control.0.kill.cancelled(), if !killed => {
                interrupted = Some(Exit::Killed);
                continue;
            }
            caught = stopping => caught,
        };
        if let Err(captured) = caught {
            record_panic(&control.0.context, "supervise", captured);
            supervisor.abandon_children();
        }
    }
    let context = &control.0.context;
    if context.path().is_root() {
        // Any other has a supervisor that says so.
        context.node().data().set(Status::Down);
    }
    supervisor.into_ended()
}

fn record_panic(context: &ChildContext, phase: &'static str, captured: CapturedPanic) -> Exit {
    let identity = context.identity();
    let exit = Exit::Panic(captured.message.clone());
    let site = PanicSite {
        component: context.component(),
        actor: &identity.label,
        policy: Policy::Restart,
        phase,
        message_type: None,
        incarnation: context.incarnation(),
        tenant: None,
        detail: vec![("path".to_owned(), identity.path.to_string())],
    };
    let incident = telemetry::panic::record(site, captured);
    context.on_record(incident);
    exit
}

/// The handle by which others act on a running supervisor.
#[derive(Clone)]
pub(crate) struct SupervisorControl(Arc<Control>);

struct Control {
    context: ChildContext,
    stop: watch::Sender<Option<StopRequest>>,
    kill: CancellationToken,
    operations: mpsc::Sender<Request>,
    drill: DrillOrder,
}

/// What a supervisor is told when it must end.
#[derive(Clone)]
struct StopRequest {
    /// No child may take longer than until then, whatever its own budget.
    deadline: Option<Instant>,
    /// The span in which the stop is traced.
    span: Span,
}

/// One operation on the child at `path`, relative to the supervisor that receives it.
pub(crate) struct Request {
    pub(crate) path: Vec<String>,
    pub(crate) operation: Operation,
    pub(crate) reply: Reply,
}

/// Where the outcome of an operation is awaited.
pub(crate) type Reply = oneshot::Sender<Result<Answer, OperationError>>;

/// What became of an operation.
#[derive(Debug)]
pub(crate) enum Answer {
    /// It was carried out.
    Done,
    /// A child serves.
    Started { incarnation: u64, handed_over: HandedOver },
    /// So many children there are.
    Counted(Counts),
}

/// What an operator can do to a child.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    /// Stop it, start it, forget its failures.
    Restart,
    /// Stop it until it is started again.
    Stop,
    /// Start it if it is not running.
    Start,
    /// Forget it; it must not be running.
    Delete,
    /// Add a child to the supervisor at the path.
    Add(Box<ChildSpec>),
    /// Count its children.
    Count,
    /// Kill it.
    Kill,
    /// Bring about a fault in it.
    Drill(Drill),
    /// It is stuck, or not any more.
    Stuck(Option<StuckIn>),
}

impl SupervisorControl {
    /// Tells it to stop its children and end. Only the first call counts.
    pub(crate) fn stop(&self, deadline: Option<Instant>, span: Span) {
        self.0.stop.send_if_modified(|request| {
            let tighter = match request {
                None => true,
                Some(known) => deadline.is_some_and(|deadline| known.deadline.is_none_or(|known| deadline < known)),
            };
            if tighter {
                *request = Some(StopRequest { deadline, span });
            }
            tighter
        });
    }

    /// Its children are killed at once, in order, and it ends as killed.
    pub(crate) fn kill(&self) {
        self.0.kill.cancel();
    }

    pub(crate) fn drill(&self, drill: Drill) {
        self.0.drill.give(drill);
    }

    /// Hands over an operation; its answer comes through the request.
    pub(crate) fn operate(&self, request: Request) {
        if let Err(refused) = self.0.operations.try_send(request) {
            let (request, error) = match refused {
                mpsc::error::TrySendError::Full(request) => (request, OperationError::Busy),
                mpsc::error::TrySendError::Closed(request) => (request, OperationError::Stopping),
            };
            // The caller may have gone; then there is no one to tell.
            let _ = request.reply.send(Err(error));
        }
    }
}
