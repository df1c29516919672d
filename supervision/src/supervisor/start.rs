//! Starting a child. Its first poll is the supervisor's own; what waits then does so in a task, so that the supervisor goes
//! on answering.

use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use telemetry::panic::{CapturedPanic, catch_with};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};

use super::{
    note::LEAKED,
    plan::{Goal, PlanId},
    slot::{Slot, State, StopPhase},
    state::{EndWatch, Sequence, StartDone, Supervisor, Timer},
    stop::KILL_GRACE,
};
use crate::{
    ChildContext, EventKind, Exit, FirstStart, GroupRestart, LossReason, OperationError, Restart, Status,
    context::Component,
    door,
    process::{Ended, StartFailure, Started},
};

telemetry::declare_spans! {
    /// One attempt to start a child: below `boot`, or a root if it is started again.
    struct StartSpan<'a> = ("child.start", internal, child_of) {
        path: &'a str,
        incarnation: i64,
    }
}

telemetry::declare_metrics! {
    /// Time of a successful start, from the call of the start function.
    pub static START_DURATION: Histogram<Component> = ("supervisor.start.duration", "s", [0.0001, 0.001, 0.01, 0.1, 1.0, 10.0]);
}

impl Supervisor {
    /// Starts the next incarnation; false if there is nothing to wait for.
    pub(super) fn begin_start(&mut self, sequence: Sequence, plan: PlanId) -> bool {
        let boot = matches!(self.plans.get(&plan).map(|plan| &plan.goal), Some(Goal::Boot));
        let parent = if boot { self.boot_span.clone() } else { Span::none() };
        let (tree, start_done) = (self.context.tree().clone(), self.inputs.start_done.clone());
        let Some(slot) = self.slots.get_mut(&sequence) else { return false };
        if matches!(slot.state, State::Up { .. } | State::Starting { .. }) {
            return false;
        }
        // An operator stopped it while its group waited.
        let by_hand =
            slot.node.data().status == Status::StoppedByHand && self.spec.group_restart == GroupRestart::Running;
        if by_hand && matches!(self.plans.get(&plan).map(|plan| &plan.goal), Some(Goal::Restart { .. })) {
            return false;
        }
        slot.plan = Some(plan);
        if matches!(slot.state, State::Leaked) {
            return self.refuse_start(sequence, Exit::error("the incarnation before it is still running"));
        }
        if let Err(conflict) = slot.hold_address() {
            return self.refuse_start(sequence, conflict);
        }
        slot.unavailable(Ok(Instant::now()));
        slot.become_(State::Starting { since: Instant::now() }, Status::Starting);
        let incarnation = {
            let mut data = slot.node.data();
            data.incarnation += 1;
            data.incarnation
        };
        let context = ChildContext::new(slot.node.clone(), tree, incarnation, CancellationToken::new());
        let start =
            StartSpan { path: slot.path().as_str(), incarnation: i64::try_from(incarnation).unwrap_or(i64::MAX) };
        let span = start.open(&parent);
        slot.context = Some(context.clone());
        let (starter, budget, is_apart) = (slot.spec.starter.clone(), slot.spec.start_budget, slot.spec.starts_apart);
        let (availability, hold) = (slot.spec.availability.clone(), slot.hold.clone());
        // Most starts are ready at once: they need neither a task nor a timer.
        let mut starting = catch_with(|| span.in_scope(|| starter.start(context.clone())));
        let mut no_one = Context::from_waker(Waker::noop());
        let mut poll = || span.in_scope(|| starting.poll_unpin(&mut no_one).map(|caught| outcome(&context, caught)));
        let first = if is_apart { Poll::Pending } else { poll() };
        if let Poll::Ready(result) = first {
            // Heard in its turn, so that a stop comes between two starts.
            let _ = start_done.send(StartDone { sequence, incarnation, result, hold, is_refused: false });
            return true;
        }
        if let Some(budget) = budget {
            self.set_timer(sequence, Timer::StartOverdue(sequence, incarnation), budget.saturating_add(KILL_GRACE));
        }
        let attempt = async move { outcome(&context, within(budget, &context, starting).await) }.instrument(span);
        let _detached = door::spawn(async move {
            let done = StartDone { sequence, incarnation, result: attempt.await, hold, is_refused: false };
            // Its supervisor has ended and reported it as leaked; what came up after all is ended here.
            if let Err(unheard) = start_done.send(done)
                && let Ok(started) = unheard.0.result
            {
                started.process.kill();
                started.ended.await;
                availability.inspect(|address| address.down(LossReason::Stopped));
                drop(unheard.0.hold);
            }
        });
        true
    }

    /// No incarnation starts while the one before it still runs, nor with the address of another child.
    fn refuse_start(&mut self, sequence: Sequence, why: Exit) -> bool {
        let incarnation = self.slots.get(&sequence).map_or(0, |slot| slot.incarnation());
        let result = Err(StartFailure::Failed(why));
        let _ = self.inputs.start_done.send(StartDone { sequence, incarnation, result, hold: None, is_refused: true });
        true
    }

    /// A start attempt is over.
    pub(super) fn start_done(&mut self, done: StartDone) {
        let StartDone { sequence, incarnation, result, hold, is_refused } = done;
        drop(hold);
        let Some(slot) = self.slots.get_mut(&sequence).filter(|slot| slot.incarnation() == incarnation) else { return };
        let stopping = match &slot.state {
            State::Stopping(stopping) => Some(stopping.phase),
            State::Starting { .. } => {
                self.cancel_timer(sequence);
                None
            }
            State::Leaked if !is_refused => return self.leaked_start_done(sequence, result),
            _ => None,
        };
        match (stopping, result) {
            (Some(phase), Ok(started)) => self.stop_late_starter(sequence, phase, started),
            (Some(_), Err(StartFailure::Cancelled { below })) => {
                self.stopped(sequence, Ended { below, ..Exit::Shutdown.into() });
            }
            (Some(_), Err(StartFailure::Leaked(ended))) => {
                self.stopped(sequence, Ended { exit: Exit::Shutdown, ..ended });
            }
            (Some(_), Err(_)) => self.stopped(sequence, Exit::Shutdown.into()),
            (None, Ok(started)) => self.is_up(sequence, started),
            (None, Err(StartFailure::Ignored)) => self.ignored(sequence),
            (None, Err(StartFailure::Cancelled { .. })) => self.start_failed(sequence, Exit::Killed),
            (None, Err(StartFailure::Failed(exit))) => self.start_failed(sequence, exit),
            (None, Err(StartFailure::Leaked(ended))) => {
                self.leaves_a_leak(sequence, &ended);
                self.start_failed(sequence, ended.exit);
            }
        }
    }

    /// A start has outlived its budget, and has not ended when it was cancelled: it does not yield.
    pub(super) fn start_overdue(&mut self, sequence: Sequence, incarnation: u64) {
        let Some(slot) = self.slots.get_mut(&sequence).filter(|slot| slot.incarnation() == incarnation) else { return };
        slot.timer = None;
        if !matches!(slot.state, State::Starting { .. }) {
            return;
        }
        tracing::error!(path = %slot.path(), incarnation, "child leaked: its start does not yield");
        LEAKED.add(1, slot.node.identity.as_component());
        slot.become_(State::Leaked, Status::Leaked);
        self.start_failed(sequence, Exit::StartTimeout);
    }

    /// A start that had leaked is over.
    fn leaked_start_done(&mut self, sequence: Sequence, result: Result<Started, StartFailure>) {
        match result {
            Ok(started) => {
                let Some(slot) = self.slots.get_mut(&sequence) else { return };
                let incarnation = slot.incarnation();
                slot.unavailable(Err(LossReason::Stopped));
                started.process.kill();
                slot.process = Some(started.process);
                self.watch(sequence, incarnation, started.ended);
            }
            Err(_) => self.leak_ended(sequence),
        }
    }

    fn is_up(&mut self, sequence: Sequence, started: Started) {
        let now = Instant::now();
        let Some(slot) = self.slots.get_mut(&sequence) else { return };
        let took = match slot.state {
            State::Starting { since } => now.duration_since(since),
            _ => Duration::ZERO,
        };
        slot.process = Some(started.process);
        slot.become_(State::Up { since: now }, Status::Up);
        let (incarnation, degraded, reset_after) = {
            let mut data = slot.node.data();
            let (incarnation, waited_ms) = (data.incarnation, data.waited_ms());
            data.outcome(|| format!("restarted as incarnation {incarnation} after {waited_ms} ms"));
            (incarnation, data.degraded, slot.spec.backoff.reset_after)
        };
        let goal = slot.plan.and_then(|id| self.plans.get(&id)).map(|plan| &plan.goal);
        match goal {
            // Whoever asked for it knows.
            Some(Goal::Operation { .. }) => {
                tracing::trace!(path = %slot.path(), incarnation, ?took, "child started by hand")
            }
            _ => tracing::debug!(path = %slot.path(), incarnation, ?took, "child started"),
        }
        START_DURATION.record(took.as_secs_f64(), slot.node.identity.as_component());
        self.watch(sequence, incarnation, started.ended);
        if degraded {
            self.set_timer(sequence, Timer::Recovered(sequence, incarnation), reset_after);
        }
        self.emit(sequence, EventKind::Started { took });
        self.step_done(sequence);
    }

    /// It was told to stop while it was starting, and came up all the same.
    fn stop_late_starter(&mut self, sequence: Sequence, phase: StopPhase, started: Started) {
        let Some(slot) = self.slots.get_mut(&sequence) else { return };
        let (incarnation, plan) = (slot.incarnation(), slot.plan);
        slot.process = Some(started.process);
        self.tell_address(sequence, plan);
        self.watch(sequence, incarnation, started.ended);
        self.apply_stop(sequence, phase);
    }

    fn watch(&mut self, sequence: Sequence, incarnation: u64, ended: BoxFuture<'static, crate::process::Ended>) {
        self.ends.push(EndWatch { sequence, incarnation, ended });
    }

    fn ignored(&mut self, sequence: Sequence) {
        self.emit(sequence, EventKind::Ignored);
        let Some(slot) = self.slots.get_mut(&sequence) else { return };
        slot.become_(State::Down, Status::Ignored);
        slot.unavailable(Err(LossReason::Finished));
        let (is_temporary, plan) = (slot.spec.restart == Restart::Temporary, slot.plan.take());
        if is_temporary || self.is_dynamic() {
            self.remove_slot(sequence);
        }
        if let Some(id) = plan {
            self.settle_one(id);
        }
    }

    /// What a failed start means depends on what it was for.
    fn start_failed(&mut self, sequence: Sequence, exit: Exit) {
        let goal = self.slots.get(&sequence).and_then(|slot| slot.plan).and_then(|id| self.plans.get(&id));
        let by_hand = matches!(goal.map(|plan| &plan.goal), Some(Goal::Operation { .. }));
        self.emit(sequence, EventKind::StartFailed { exit: exit.clone(), by_hand });
        let Some(slot) = self.slots.get_mut(&sequence) else { return };
        let leaked = matches!(slot.state, State::Leaked);
        if !leaked {
            slot.become_(State::Down, Status::Down);
        }
        let (path, incarnation) = (slot.path().clone(), slot.incarnation());
        if let Some(suppressed) = self.log_limit.admit() {
            tracing::warn!(%path, incarnation, %exit, suppressed, "child did not start");
        }
        let first_start = slot.spec.first_start;
        let Some(id) = slot.plan.take() else { return self.restart_failed(sequence, exit) };
        match self.plans.get(&id).map(|plan| &plan.goal) {
            Some(Goal::Boot) if first_start == FirstStart::Retry => {
                self.first_failures.push((sequence, exit));
                self.settle_one(id);
            }
            Some(Goal::Boot) => {
                slot.unavailable(Err(LossReason::Failed));
                self.plans.remove(&id);
                self.boot_failed(sequence, exit);
            }
            Some(Goal::Operation { .. }) => {
                slot.unavailable(Err(LossReason::Failed));
                self.operation_start_failed(sequence);
                self.abandon(id, OperationError::StartFailed { exit });
            }
            Some(Goal::Restart { .. } | Goal::Unstick { .. } | Goal::End) | None => {
                self.abandon(id, OperationError::StartFailed { exit: exit.clone() });
                self.restart_failed(sequence, exit);
            }
        }
    }

    /// A child did not start, and the supervisor with it.
    fn boot_failed(&mut self, sequence: Sequence, exit: Exit) {
        let Some(slot) = self.slots.get(&sequence) else { return };
        let (child, incarnation) = (slot.path().clone(), slot.incarnation());
        tracing::error!(path = %self.context.path(), %child, incarnation, %exit, "supervisor does not start");
        self.end(Exit::GaveUp { path: child, cause: Box::new(exit) });
    }
}

impl Slot {
    /// Makes its address its own.
    ///
    /// # Errors
    /// It is another child's already; this says whose.
    fn hold_address(&mut self) -> Result<(), Exit> {
        let Some(address) = self.spec.availability.as_ref().filter(|_| self.hold.is_none()) else { return Ok(()) };
        let hold = address.hold(self.path()).map_err(|holder| {
            Exit::error(format!("the address {} is that of the child at {holder}", address.identity().0))
        })?;
        self.hold = Some(Arc::new(hold));
        Ok(())
    }
}

/// What an actor leaves behind when its start fails is foreign code too, and may panic when it is dropped.
fn outcome(
    context: &ChildContext,
    caught: Result<Result<Started, StartFailure>, CapturedPanic>,
) -> Result<Started, StartFailure> {
    caught.unwrap_or_else(|captured| Err(StartFailure::Failed(super::record_panic(context, "start", captured))))
}

/// The rest of one attempt, within its budget. It returns only when nothing of a failed attempt is left.
async fn within<F>(
    budget: Option<Duration>,
    context: &ChildContext,
    mut starting: F,
) -> Result<Result<Started, StartFailure>, CapturedPanic>
where
    F: Future<Output = Result<Result<Started, StartFailure>, CapturedPanic>> + Unpin,
{
    let Some(budget) = budget else { return starting.await };
    if let Ok(result) = tokio::time::timeout(budget, &mut starting).await {
        return result;
    }
    context.cancel();
    // Its own failure, by then, is the same.
    let ended = match starting.await? {
        Ok(started) => {
            started.process.kill();
            started.ended.await
        }
        Err(StartFailure::Leaked(ended)) => ended,
        Err(StartFailure::Cancelled { below }) => Ended { below, ..Exit::StartTimeout.into() },
        Err(StartFailure::Ignored | StartFailure::Failed(_)) => Exit::StartTimeout.into(),
    };
    Ok(Err(Ended { exit: Exit::StartTimeout, ..ended }.into()))
}
