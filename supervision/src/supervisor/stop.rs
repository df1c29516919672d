//! Stopping a child: ask, wait for its budget, kill, wait for the grace, else report it as leaked.

use std::time::Duration;

use telemetry::spans::{Shown, shown};
use tokio::time::Instant;
use tracing::Span;

use super::{
    StopRequest,
    note::{ChildStopSpan, LEAKED},
    plan::{Goal, PlanId, Step},
    slot::{Slot, State, StopPhase, Stopping},
    state::{Deferred, FAR, Sequence, Supervisor, Timer},
};
use crate::{
    ChildContext, Exit, Kind, LossReason, OperationError, Restart, Shutdown, Status, StopOutcome, Strategy,
    process::{Ended, Process},
};

telemetry::declare_spans! {
    /// The end of a supervisor that nobody asked for: of one whose child used up its budget, or that did not start.
    struct StopSpan<'a> = ("supervisor.stop", internal, child_of) {
        path: &'a str,
        reason: Shown<'a, Exit>,
    }
}

/// After a kill the future is dropped at its next await; what takes longer does not yield.
pub(super) const KILL_GRACE: Duration = Duration::from_secs(1);

/// A killed supervisor kills its children one by one, each with a grace of its own.
const KILL_GRACE_OF_SUPERVISOR: Duration = Duration::from_secs(5);

impl Supervisor {
    pub(super) fn stop_asked(&mut self, request: StopRequest) {
        self.stop_heard = true;
        self.stop_deadline = match (self.stop_deadline, request.deadline) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        if self.ending.is_some() {
            let all: Vec<Sequence> = self.slots.keys().copied().collect();
            for sequence in all {
                self.hurry(sequence);
            }
            return;
        }
        if self.is_at_work() && self.spec.is_serial {
            return self.inbox.push_back(Deferred::Stop(request));
        }
        self.stop_now(request);
    }

    pub(super) fn stop_now(&mut self, request: StopRequest) {
        if self.ending.is_none() {
            self.stop_span = request.span;
        }
        self.end(Exit::Shutdown);
    }

    /// Stops all children in reverse order, and then ends as `exit`. Only the first call counts.
    pub(super) fn end(&mut self, exit: Exit) {
        if self.ending.is_some() {
            return;
        }
        if self.stop_span.is_none() {
            // Nobody asked: the end, and what it does to the children, is a trace of its own, or a part of the boot's.
            let stop = StopSpan { path: self.context.path().as_str(), reason: shown(&exit) };
            self.stop_span = stop.open(&self.boot_span);
        }
        self.ending = Some(exit);
        self.ending_since = Some(Instant::now());
        for slot in self.slots.values_mut() {
            slot.plan = None;
        }
        self.retries.clear();
        for (_, plan) in std::mem::take(&mut self.plans) {
            self.refuse(plan, OperationError::Stopping);
        }
        self.report.reserve(self.slots.len());
        let order = self.slots.keys().rev().copied();
        let steps = match self.spec.strategy {
            Strategy::Dynamic { .. } => vec![Step::StopAll(order.collect())],
            _ => self.stop_steps(order),
        };
        self.begin(Goal::End, steps);
    }

    /// One child after the other, but neighbours of one stop group at once.
    pub(super) fn stop_steps(&self, order: impl Iterator<Item = Sequence>) -> Vec<Step> {
        let (mut steps, mut before) = (Vec::with_capacity(order.size_hint().0), None);
        for sequence in order {
            let group = self.slots.get(&sequence).and_then(|slot| slot.spec.stop_group);
            match steps.last_mut() {
                Some(Step::StopAll(members)) if before == group => members.push(sequence),
                _ if group.is_some() => steps.push(Step::StopAll(vec![sequence])),
                _ => steps.push(Step::Stop(sequence)),
            }
            before = group;
        }
        steps
    }

    /// Begins to stop a child; false if it is not running.
    pub(super) fn begin_stop(&mut self, sequence: Sequence, plan: PlanId) -> bool {
        let ending = self.ending.is_some();
        let Some(slot) = self.slots.get(&sequence) else { return false };
        match &slot.state {
            State::Stopping(_) => return self.join_stop(sequence, plan),
            State::Starting { .. } | State::Up { .. } => {}
            State::Exited { exit, .. } => {
                let outcome = self.judged(slot, exit.clone());
                self.note_stop(sequence, outcome, Duration::ZERO, Vec::new());
                self.rest(sequence, plan);
                if !self.starts_next(sequence, plan) {
                    self.forget_if_temporary(sequence);
                }
                return false;
            }
            State::Waiting => {
                self.cancel_timer(sequence);
                self.rest(sequence, plan);
                return false;
            }
            State::Down => {
                self.rest(sequence, plan);
                return false;
            }
            State::Leaked => {
                if ending {
                    self.note_stop(sequence, StopOutcome::Leaked, Duration::ZERO, Vec::new());
                }
                return false;
            }
        }
        let parent = if ending { self.stop_span.clone() } else { Span::none() };
        self.takes_over(sequence, plan);
        let Some(slot) = self.slots.get_mut(&sequence) else { return false };
        let span = ChildStopSpan { path: slot.path().as_str() }.open(&parent);
        let phase =
            if slot.spec.shutdown == Shutdown::BrutalKill { StopPhase::BrutallyKilled } else { StopPhase::Asked };
        slot.become_(State::Stopping(Stopping { since: Instant::now(), phase, span }), Status::Stopping);
        slot.cancel();
        self.tell_address(sequence, Some(plan));
        self.apply_stop(sequence, phase);
        true
    }

    /// The child is stopping already: for a plan that is gone, or one that this one takes the place of.
    fn join_stop(&mut self, sequence: Sequence, plan: PlanId) -> bool {
        self.takes_over(sequence, plan);
        self.tell_address(sequence, Some(plan));
        self.hurry(sequence);
        true
    }

    /// True if the plan starts the child as soon as it is stopped.
    fn starts_next(&self, sequence: Sequence, plan: PlanId) -> bool {
        let next = self.plans.get(&plan).and_then(|plan| plan.steps.front());
        matches!(next, Some(Step::Start(next)) if *next == sequence)
    }

    /// From here on the child moves for this plan; one that it moved for before is abandoned, and whoever asked for it told.
    fn takes_over(&mut self, sequence: Sequence, plan: PlanId) {
        let before = self.slots.get_mut(&sequence).and_then(|slot| slot.plan.replace(plan));
        if let Some(before) = before.filter(|before| *before != plan) {
            self.abandon(before, OperationError::Superseded);
        }
    }

    /// Tells the address of a child that stops when the plan for which it does starts it again, if it does.
    pub(super) fn tell_address(&self, sequence: Sequence, plan: Option<PlanId>) {
        let Some(slot) = self.slots.get(&sequence) else { return };
        let due = plan.and_then(|id| match &self.plans.get(&id)?.goal {
            Goal::Restart { due } => Some(*due).filter(|_| self.takes_part(sequence)),
            Goal::Unstick { .. } => Some(Instant::now()),
            Goal::Operation { .. } => Some(Instant::now()).filter(|_| self.starts_next(sequence, id)),
            Goal::Boot | Goal::End => None,
        });
        slot.unavailable(due.ok_or(LossReason::Stopped));
    }

    /// Acts on a child that is to stop, as far as it has a process, and sets the clock.
    pub(super) fn apply_stop(&mut self, sequence: Sequence, phase: StopPhase) {
        let left = self.stop_deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let Some(slot) = self.slots.get_mut(&sequence) else { return };
        let own = match slot.spec.shutdown {
            Shutdown::Within(budget) => Some(budget),
            Shutdown::Infinity => None,
            Shutdown::BrutalKill => Some(Duration::ZERO),
        };
        let budget = match (own, left) {
            (Some(own), Some(left)) => Some(own.min(left)),
            (own, left) => own.or(left),
        };
        if phase != StopPhase::Asked || budget.is_some_and(|budget| budget.is_zero()) {
            return self.kill(sequence);
        }
        let span = match &slot.state {
            State::Stopping(stopping) => stopping.span.clone(),
            _ => Span::none(),
        };
        match &slot.process {
            Some(Process::Actor { cell, .. }) => cell.stop(None),
            Some(Process::Supervisor(control)) => {
                control.stop(budget.map(|budget| Instant::now() + budget.min(FAR)), span)
            }
            // A task, and a child that is still starting, hear it from their token; a starting supervisor must hear how
            // much time it has.
            Some(Process::Task { .. }) | None => {
                if let Some(control) = slot.context.as_ref().and_then(ChildContext::control) {
                    control.stop(budget.map(|budget| Instant::now() + budget.min(FAR)), span);
                }
            }
        }
        match budget {
            Some(budget) => self.set_timer(
                sequence,
                Timer::StopOverdue(sequence),
                budget.min(FAR) + margin(slot_kind(self, sequence)),
            ),
            None => self.cancel_timer(sequence),
        }
    }

    /// A deadline became known, or an earlier one, after it was asked to stop.
    fn hurry(&mut self, sequence: Sequence) {
        let Some(deadline) = self.stop_deadline else { return };
        let Some(slot) = self.slots.get(&sequence) else { return };
        let State::Stopping(stopping) = &slot.state else { return };
        if stopping.phase != StopPhase::Asked {
            return;
        }
        let own = match slot.spec.shutdown {
            Shutdown::Within(budget) => Some(stopping.since + budget.min(FAR)),
            Shutdown::Infinity | Shutdown::BrutalKill => None,
        };
        let due = own.map_or(deadline, |own| own.min(deadline));
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return self.kill(sequence);
        }
        if let Some(Process::Supervisor(control)) = &slot.process {
            control.stop(Some(due), stopping.span.clone());
        }
        self.set_timer(sequence, Timer::StopOverdue(sequence), left + margin(slot_kind(self, sequence)));
    }

    fn kill(&mut self, sequence: Sequence) {
        let Some(slot) = self.slots.get_mut(&sequence) else { return };
        if let State::Stopping(stopping) = &mut slot.state
            && stopping.phase == StopPhase::Asked
        {
            stopping.phase = StopPhase::Killed;
        }
        match (&slot.process, slot.context.as_ref().and_then(ChildContext::control)) {
            (Some(process), _) => process.kill(),
            (None, Some(control)) => control.kill(),
            (None, None) => {}
        }
        let grace = if slot.spec.kind == Kind::Supervisor { KILL_GRACE_OF_SUPERVISOR } else { KILL_GRACE };
        self.set_timer(sequence, Timer::StopOverdue(sequence), grace);
    }

    /// The budget, or the grace after the kill, is used up.
    pub(super) fn stop_overdue(&mut self, sequence: Sequence) {
        let Some(State::Stopping(stopping)) = self.slots.get(&sequence).map(|slot| &slot.state) else { return };
        match stopping.phase {
            StopPhase::Asked => self.kill(sequence),
            StopPhase::Killed | StopPhase::BrutallyKilled => self.leaked(sequence),
        }
    }

    fn leaked(&mut self, sequence: Sequence) {
        let took = self.stopping_for(sequence);
        self.note_stop(sequence, StopOutcome::Leaked, took, Vec::new());
        if let Some(slot) = self.slots.get_mut(&sequence) {
            LEAKED.add(1, slot.node.identity.as_component());
            slot.become_(State::Leaked, Status::Leaked);
        }
        self.leak_known(sequence);
    }

    /// An operator hears of it. What should have followed does not, or not before it has ended after all.
    fn leak_known(&mut self, sequence: Sequence) {
        let plan = self.slots.get(&sequence).and_then(|slot| slot.plan);
        match plan.and_then(|id| Some((id, &self.plans.get(&id)?.goal))) {
            Some((id, Goal::Operation { .. })) => {
                self.abandon(id, OperationError::Leaked);
                self.tell_address(sequence, None);
            }
            Some((id, Goal::Unstick { exit, .. })) => {
                let exit = exit.clone();
                if let Some(slot) = self.slots.get_mut(&sequence) {
                    slot.comes_back = Some(exit);
                }
                self.abandon(id, OperationError::Leaked);
            }
            _ => self.step_done(sequence),
        }
    }

    /// A child that was asked to stop is gone.
    pub(super) fn stopped(&mut self, sequence: Sequence, ended: Ended) {
        let Some(slot) = self.slots.get_mut(&sequence) else { return };
        let State::Stopping(stopping) = &slot.state else { return };
        let (phase, plan) = (stopping.phase, slot.plan);
        slot.process = None;
        self.cancel_timer(sequence);
        let took = self.stopping_for(sequence);
        let leaked = ended.leaves_something();
        let outcome = match (phase, ended.exit) {
            _ if !ended.leaked_tasks.is_empty() => StopOutcome::Leaked,
            (StopPhase::Killed, _) => StopOutcome::Killed,
            (StopPhase::BrutallyKilled | StopPhase::Asked, exit) => self.judged(&self.slots[&sequence], exit),
        };
        self.note_stop(sequence, outcome, took, ended.below);
        // The plan that stopped it may have been abandoned; then it simply is down.
        self.rest(sequence, plan.unwrap_or(PlanId::MAX));
        if leaked {
            LEAKED.add(1, self.slots[&sequence].node.identity.as_component());
            if let Some(slot) = self.slots.get_mut(&sequence) {
                slot.become_(State::Leaked, Status::Leaked);
            }
            return self.leak_known(sequence);
        }
        self.step_done(sequence);
        self.forget_if_temporary(sequence);
    }

    /// How good an end is of a child that was asked to stop, or was about to be.
    fn judged(&self, slot: &Slot, exit: Exit) -> StopOutcome {
        let asked_for = if slot.spec.shutdown == Shutdown::BrutalKill { Exit::Killed } else { Exit::Shutdown };
        let is_lax = !self.spec.is_strict || slot.spec.restart != Restart::Permanent;
        if exit == asked_for || is_lax && exit.is_orderly() { StopOutcome::Stopped } else { StopOutcome::Failed(exit) }
    }

    /// The child is down, for the reason its plan had.
    fn rest(&mut self, sequence: Sequence, plan: PlanId) {
        let then = match self.plans.get(&plan).map(|plan| &plan.goal) {
            Some(Goal::Operation { then, .. }) => *then,
            _ => Status::Down,
        };
        self.tell_address(sequence, Some(plan));
        let Some(slot) = self.slots.get_mut(&sequence) else { return };
        // What was stopped by hand or came to its end stays so when its group is stopped.
        let kept = matches!(slot.state, State::Down) && then == Status::Down;
        if !kept {
            slot.become_(State::Down, then);
        }
        if then == Status::StoppedByHand {
            self.context.heartbeats().forget(&self.slots[&sequence].node.identity.path.clone());
        }
    }

    /// A temporary child that was stopped, by hand or with its group, leaves no trace.
    pub(super) fn forget_if_temporary(&mut self, sequence: Sequence) {
        let all = self.is_dynamic() && self.spec.forgets_stopped;
        let gone = self.slots.get(&sequence).is_some_and(|slot| {
            let is_temporary = all || slot.spec.restart == Restart::Temporary;
            is_temporary && matches!(slot.state, State::Down) && self.ending.is_none()
        });
        if gone {
            self.remove_slot(sequence);
        }
    }

    fn stopping_for(&self, sequence: Sequence) -> Duration {
        match self.slots.get(&sequence).map(|slot| &slot.state) {
            Some(State::Stopping(stopping)) => stopping.since.elapsed(),
            _ => Duration::ZERO,
        }
    }
}

/// A supervisor keeps to the deadline by itself; it gets a little longer to say so.
fn margin(kind: Kind) -> Duration {
    if kind == Kind::Supervisor { KILL_GRACE + Duration::from_millis(100) } else { Duration::ZERO }
}

fn slot_kind(supervisor: &Supervisor, sequence: Sequence) -> Kind {
    supervisor.slots.get(&sequence).map_or(Kind::Task, |slot| slot.spec.kind)
}
