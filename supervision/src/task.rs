//! Futures as children.

use std::{future::Future, sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use telemetry::panic::{PanicSite, Policy};
use tokio::sync::oneshot;

use crate::{
    BoxError, ChildContext, Exit, Ignore, TaskGroup,
    activity::shown,
    door,
    fault::{self, Life},
    process::{Ended, Process, StartChild, StartFailure, Started, TaskControls},
};

/// What the tasks of an ended incarnation may take to follow it.
const SCOPED_TASKS_BUDGET: Duration = Duration::from_millis(250);

type Run = dyn Fn(ChildContext) -> BoxFuture<'static, Result<(), BoxError>> + Send + Sync;

/// Starts the incarnations of one task.
#[derive(Clone)]
pub(crate) struct TaskStarter {
    run: Arc<Run>,
    readiness: Readiness,
    placement: Placement,
}

/// When the start of a task is complete.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Readiness {
    Spawned,
    Declared,
}

/// Where a task runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placement {
    MainRuntime,
    OwnRuntime,
}

impl TaskStarter {
    pub(crate) fn new<F, Fut>(run: F) -> Self
    where
        F: Fn(ChildContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        // In an async block, so that a panic of `run` itself is caught as one of its future.
        let run = Arc::new(run);
        let run: Arc<Run> = Arc::new(move |context| {
            let run = Arc::clone(&run);
            async move {
                let _life = Life::begin(&context);
                fault::strike(&context, "task");
                run(context).await
            }
            .boxed()
        });
        Self { run, readiness: Readiness::Spawned, placement: Placement::MainRuntime }
    }

    pub(crate) fn with_readiness(&self) -> Self {
        Self { readiness: Readiness::Declared, ..self.clone() }
    }

    pub(crate) fn placed(&self, placement: Placement) -> Self {
        Self { placement, ..self.clone() }
    }

    fn spawn(&self, context: ChildContext) -> Result<(TaskControls, oneshot::Receiver<Ended>), StartFailure> {
        let controls = TaskControls::default();
        let (sender, receiver) = oneshot::channel();
        let work = run_to_end((self.run)(context.clone()), context.clone(), controls.clone());
        // Nobody waits for the end of a start that was given up.
        let tell = move |ended| drop(sender.send(ended));
        match self.placement {
            Placement::MainRuntime => drop(door::spawn(work.map(tell))),
            Placement::OwnRuntime => door::spawn_on_own_runtime(context.path().as_str(), work, tell)
                .map_err(|error| StartFailure::Failed(Exit::Error(format!("cannot make a runtime: {error}"))))?,
        }
        Ok((controls, receiver))
    }
}

impl StartChild for TaskStarter {
    fn start(&self, context: ChildContext) -> BoxFuture<'static, Result<Started, StartFailure>> {
        let this = self.clone();
        async move {
            let (controls, ended) = this.spawn(context.clone())?;
            // The sender is dropped unsent only with its runtime.
            let mut ended = ended.map(|ended| ended.unwrap_or_else(|_| Exit::Killed.into())).boxed();
            if this.readiness == Readiness::Declared {
                let cancelled = context.cancelled();
                tokio::select! {
                    biased;
                    () = async { context.until_ready().await; fault::hold(&context, "ready").await } => {}
                    end = &mut ended => return Err(ended_before_ready(end, &context)),
                    () = cancelled.cancelled() => {
                        controls.kill.cancel();
                        let ended = ended.await;
                        return Err(if ended.leaves_something() { ended.into() } else { StartFailure::Cancelled { below: Vec::new() } });
                    }
                }
            }
            Ok(Started { process: Process::Task { controls }, ended })
        }
        .boxed()
    }

    fn as_task(&self) -> Option<&TaskStarter> {
        Some(self)
    }
}

fn ended_before_ready(ended: Ended, context: &ChildContext) -> StartFailure {
    let Ended { exit, ignored, .. } = ended;
    let leaving = Ended { leaked_tasks: ended.leaked_tasks, ..Exit::Normal.into() };
    match exit {
        exit if leaving.leaves_something() => Ended { exit, ..leaving }.into(),
        _ if context.cancelled().is_cancelled() => StartFailure::Cancelled { below: Vec::new() },
        _ if ignored => StartFailure::Ignored,
        exit if exit.is_orderly() => Ended { exit: Exit::error("ended before it was ready"), ..leaving }.into(),
        exit => Ended { exit, ..leaving }.into(),
    }
}

/// Runs the task, ends what it spawned, and says how it ended. Its future is dropped before this returns.
async fn run_to_end(
    run: BoxFuture<'static, Result<(), BoxError>>,
    context: ChildContext,
    controls: TaskControls,
) -> Ended {
    let path = context.path().clone();
    let activity = context.node().is_metered.then(|| context.heartbeats().activity(&path, "task", None));
    // The kill is heard inside, so that what is left of the task is dropped where a panic is caught.
    let work = telemetry::panic::catch(async move {
        let mut run = run;
        let obedient = async {
            tokio::select! {
                biased;
                // From here on the task is not polled any more.
                () = controls.drill.given() => {
                    controls.drill.carry_out(&path).await;
                    Ok(())
                }
                result = &mut run => result,
            }
        };
        tokio::select! {
            biased;
            () = controls.kill.cancelled() => None,
            result = obedient => Some(result),
        }
    });
    let mut ignored = false;
    let exit = match shown(activity, work).await {
        Ok(None) => Exit::Killed,
        Ok(Some(Ok(()))) if context.cancelled().is_cancelled() => Exit::Shutdown,
        Ok(Some(Ok(()))) => Exit::Normal,
        Ok(Some(Err(error))) if error.is::<Ignore>() => {
            ignored = true;
            Exit::Normal
        }
        Ok(Some(Err(error))) => Exit::of_failure(error),
        Err(captured) => {
            let message = captured.message.clone();
            fault::seen(&context, "task", &message);
            let incident = telemetry::panic::record(site(&context), captured);
            context.on_record(incident);
            Exit::Panic(message)
        }
    };
    let leaked_tasks = match context.started_tasks() {
        Some(tasks) => end_scoped_tasks(tasks, &exit).await,
        None => Vec::new(),
    };
    context.heartbeats().incarnation_ended(context.path());
    Ended { leaked_tasks, ignored, ..exit.into() }
}

fn site(context: &ChildContext) -> PanicSite<'_> {
    let identity = context.identity();
    PanicSite {
        component: context.component(),
        actor: &identity.label,
        policy: Policy::Restart,
        phase: "task",
        message_type: None,
        incarnation: context.incarnation(),
        tenant: None,
        detail: vec![("path".to_owned(), identity.path.to_string())],
    }
}

/// Ends the tasks of an incarnation that is over; returns the names of those that do not yield. Those of one that was killed
/// are given no time either: with all of its siblings' that would add up, and their supervisor be taken for leaked.
///
/// Boxed, because most children have none, and all that wait for an end would have to have room for it.
pub(crate) fn end_scoped_tasks<'a>(tasks: &'a TaskGroup, exit: &Exit) -> BoxFuture<'a, Vec<String>> {
    let budget = if *exit == Exit::Killed { Duration::ZERO } else { SCOPED_TASKS_BUDGET };
    tasks.stop(budget).boxed()
}
