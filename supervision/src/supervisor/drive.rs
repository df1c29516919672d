//! The loop, and the plans it drives.

use std::future::poll_fn;

use futures_util::StreamExt;

use super::{
    Answer, StopRequest,
    state::{Deferred, Goal, Plan, PlanId, Sequence, State, Step, Supervisor, Timer},
};
use crate::{Exit, LossReason, Status, node::millis, process::Ended};

impl Supervisor {
    /// Starts the children, then lives until all of them are stopped. Its handlers do not wait, so that between any two
    /// inputs the state is whole.
    pub(super) async fn run(&mut self) {
        if self.started.is_some() && self.ending.is_none() {
            let steps: Vec<Step> = match self.spec.strategy {
                crate::Strategy::Dynamic { .. } => Vec::new(),
                _ => self.slots.keys().copied().map(Step::Start).collect(),
            };
            self.begin(Goal::Boot, steps);
        }
        let heartbeats = self.context.heartbeats().clone();
        while !self.done {
            // A stop wins over all else; operations over the churn of a child that fails again and again.
            tokio::select! {
                biased;
                request = stop_request(&mut self.inputs.stop, self.stop_heard) => self.stop_asked(request),
                () = self.inputs.drill.given(), if self.ending.is_none() => {
                    self.inputs.drill.carry_out(self.context.path()).await;
                }
                Some(request) = self.inputs.operations.recv() => self.operate(request),
                Some((sequence, incarnation, ended)) = self.ends.next(), if !self.ends.is_empty() => {
                    self.child_ended(sequence, incarnation, ended);
                }
                Some(done) = self.inputs.starts.recv() => self.start_done(done),
                Some(timer) = poll_fn(|cx| self.timers.poll_expired(cx)), if !self.timers.is_empty() => {
                    self.timer_fired(timer.into_inner());
                }
                () = heartbeats.until_watched(), if self.must_begin_to_look() => self.look(),
                // Last of all: a retry comes after whatever else there is to do.
                () = std::future::ready(()), if !self.retries.is_empty() && !self.is_at_work() => self.take_retry(),
            }
            self.take_deferred();
        }
    }

    fn take_retry(&mut self) {
        if let Some(sequence) = self.retries.pop_front() {
            self.retry_now(sequence);
        }
    }

    /// Takes a plan as far as it goes without waiting.
    pub(super) fn advance(&mut self, id: PlanId) {
        loop {
            let Some(plan) = self.plans.get_mut(&id) else { return };
            if plan.open > 0 {
                return;
            }
            let step = plan.steps.pop_front();
            plan.is_paused = matches!(step, Some(Step::Pause(..)));
            let open = match step {
                None => return self.complete(id),
                Some(Step::Stop(sequence)) => usize::from(self.begin_stop(sequence, id)),
                Some(Step::StopAll(sequences)) => {
                    sequences.into_iter().filter(|sequence| self.begin_stop(*sequence, id)).count()
                }
                Some(Step::Pause(sequence, delay)) => usize::from(self.begin_pause(sequence, delay, id)),
                Some(Step::Start(sequence)) => usize::from(self.begin_start(sequence, id)),
                Some(Step::Group(culprit)) => {
                    let (stops, starts) = self.group_steps(culprit);
                    if let Some(plan) = self.plans.get_mut(&id) {
                        plan.steps = stops.into_iter().chain(starts).collect();
                    }
                    0
                }
            };
            if let Some(plan) = self.plans.get_mut(&id) {
                plan.open = open;
            }
        }
    }

    /// What the child's plan waited for has happened.
    pub(super) fn step_done(&mut self, sequence: Sequence) {
        let Some(id) = self.slots.get_mut(&sequence).and_then(|slot| slot.plan.take()) else { return };
        self.settle_one(id);
    }

    /// One of the things that a plan's current step waited for has happened.
    pub(super) fn settle_one(&mut self, id: PlanId) {
        if let Some(plan) = self.plans.get_mut(&id) {
            plan.open = plan.open.saturating_sub(1);
            self.advance(id);
        }
    }

    /// Forgets a plan; whoever waited for it is told `why`. Children that are starting or stopping go on doing so.
    pub(super) fn abandon(&mut self, id: PlanId, why: crate::OperationError) {
        if let Some(plan) = self.take_plan(id) {
            self.refuse(plan, why);
        }
    }

    /// Forgets a plan for one that starts the same children: their addresses go on waiting.
    pub(super) fn replace(&mut self, id: PlanId) {
        if let Some(plan) = self.take_plan(id) {
            tell(plan, &crate::OperationError::Superseded);
        }
    }

    fn take_plan(&mut self, id: PlanId) -> Option<Plan> {
        for slot in self.slots.values_mut().filter(|slot| slot.plan == Some(id)) {
            slot.plan = None;
        }
        self.plans.remove(&id)
    }

    /// A plan will not be carried out, or not to its end.
    pub(super) fn refuse(&self, plan: Plan, why: crate::OperationError) {
        // Those still to be started were told that they would be.
        let to_start = plan.steps.iter().flat_map(|step| match step {
            Step::Start(sequence) => vec![*sequence],
            Step::Group(culprit) => self.group_of(*culprit),
            Step::Stop(_) | Step::StopAll(_) | Step::Pause(..) => Vec::new(),
        });
        let slots = to_start.filter_map(|sequence| self.slots.get(&sequence));
        slots
            .filter(|slot| matches!(slot.state, State::Down))
            .for_each(|slot| slot.unavailable(Err(LossReason::Stopped)));
        tell(plan, &why);
    }

    fn complete(&mut self, id: PlanId) {
        let Some(plan) = self.plans.remove(&id) else { return };
        for (sequence, reply) in plan.waiters {
            let _ = reply.send(Ok(self.started_or_done(sequence)));
        }
        match plan.goal {
            Goal::Boot => self.booted(),
            Goal::End => {
                self.tell_unclean();
                self.done = true;
            }
            Goal::Operation { sequence, reply, .. } => {
                let outcome = self.started_or_done(sequence);
                // Before whoever asked is told, who may look.
                self.forget_if_temporary(sequence);
                let _ = reply.send(Ok(outcome));
            }
            Goal::Unstick { sequence, exit, uptime } => self.restart(sequence, exit, uptime),
            Goal::Restart { .. } => {}
        }
    }

    fn booted(&mut self) {
        // Held any longer, the boot would never end, and so never be exported.
        self.boot_span = tracing::Span::none();
        if let Some(started) = self.started.take() {
            // The starter may have been cancelled; then a stop request is on its way.
            let _ = started.send(());
        }
        for (sequence, exit) in std::mem::take(&mut self.first_failures) {
            self.restart_failed(sequence, exit);
        }
        if self.ends_after_boot {
            self.end(Exit::Shutdown);
        }
    }

    /// How the start of a child went that somebody asked for.
    fn started_or_done(&self, sequence: Sequence) -> Answer {
        let Some(slot) = self.slots.get(&sequence).filter(|slot| matches!(slot.state, State::Up { .. })) else {
            return Answer::Done;
        };
        let handed_over = slot.context.as_ref().map(crate::ChildContext::take_handed_over).unwrap_or_default();
        Answer::Started { incarnation: slot.incarnation(), handed_over }
    }

    fn begin_pause(&mut self, sequence: Sequence, delay: std::time::Duration, id: PlanId) -> bool {
        let Some(slot) = self.slots.get_mut(&sequence) else { return false };
        if delay.is_zero() {
            return false;
        }
        slot.plan = Some(id);
        if !matches!(slot.state, State::Leaked) {
            slot.become_(State::Waiting, Status::Waiting { due_in_ms: millis(delay) });
        }
        self.set_timer(sequence, Timer::Due(sequence), delay);
        true
    }

    /// What a child waits for comes now, or as soon as an operation on one of its group is carried out.
    pub(super) fn pause_over(&mut self, sequence: Sequence) {
        if self.is_at_work() {
            return self.inbox.push_back(Deferred::Due(sequence));
        }
        let Some(slot) = self.slots.get_mut(&sequence).filter(|slot| matches!(slot.state, State::Waiting)) else {
            // A pause of a leaked child has no face.
            return self.step_done(sequence);
        };
        // Its turn in its group may come later, or not at all.
        slot.become_(State::Down, Status::Down);
        self.step_done(sequence);
    }

    fn timer_fired(&mut self, timer: Timer) {
        match timer {
            Timer::Due(sequence) => {
                if let Some(slot) = self.slots.get_mut(&sequence) {
                    slot.timer = None;
                }
                self.pause_over(sequence);
            }
            Timer::StopOverdue(sequence) => {
                if let Some(slot) = self.slots.get_mut(&sequence) {
                    slot.timer = None;
                }
                self.stop_overdue(sequence);
            }
            Timer::StartOverdue(sequence, incarnation) => self.start_overdue(sequence, incarnation),
            Timer::Recovered(sequence, incarnation) => {
                if let Some(slot) = self.slots.get_mut(&sequence) {
                    slot.timer = None;
                }
                self.recovered(sequence, incarnation);
            }
            Timer::Look => self.look(),
        }
    }

    /// Takes up what waited for a plan that is complete now, in the order in which it came.
    fn take_deferred(&mut self) {
        for _ in 0..self.inbox.len() {
            if self.is_at_work() {
                return;
            }
            let Some(deferred) = self.inbox.pop_front() else { return };
            let must_wait = match &deferred {
                Deferred::End(..) | Deferred::Operation(_) if self.ending.is_some() => true,
                Deferred::End(sequence, _) | Deferred::Stuck(sequence) => self.is_busy(*sequence),
                Deferred::Operation(_) => false,
                Deferred::Due(_) | Deferred::Retry(_) | Deferred::Stop(_) => false,
            };
            if must_wait {
                self.inbox.push_back(deferred);
            } else {
                self.take(deferred);
            }
        }
    }

    fn take(&mut self, deferred: Deferred) {
        match deferred {
            Deferred::Operation(request) => self.operate(request),
            Deferred::Stop(request) => self.stop_now(request),
            Deferred::Retry(sequence) => self.retry_now(sequence),
            Deferred::Due(sequence) => {
                let plan = self.slots.get(&sequence).and_then(|slot| self.plans.get(&slot.plan?));
                if plan.is_some_and(|plan| plan.is_paused) {
                    self.pause_over(sequence);
                }
            }
            Deferred::Stuck(sequence) => self.unstick(sequence),
            Deferred::End(sequence, incarnation) => {
                let Some(slot) = self.slots.get_mut(&sequence) else { return };
                // If a plan stopped it meanwhile, its end is consumed.
                if !matches!(slot.state, State::Exited { .. }) || slot.incarnation() != incarnation {
                    return;
                }
                if let State::Exited { exit, uptime } = std::mem::replace(&mut slot.state, State::Down) {
                    self.ended_by_itself(sequence, exit, uptime);
                }
            }
        }
    }

    /// The loop was interrupted: by a panic of its own, or by a kill, which leaves its children no time.
    pub(super) fn interrupt(&mut self, exit: Exit) {
        let killed = exit == Exit::Killed;
        self.ending = None;
        if killed {
            self.stop_deadline = Some(tokio::time::Instant::now());
        }
        self.end(exit);
    }

    /// The stop of the children has failed as well: kill what can be killed.
    pub(super) fn abandon_children(&mut self) {
        for slot in self.slots.values_mut().rev().filter(|slot| slot.is_alive()) {
            slot.cancel();
            if let Some(process) = &slot.process {
                process.kill();
            }
            slot.unavailable(Err(LossReason::Failed));
            tracing::error!(path = %slot.node.identity.path, "child abandoned: its supervisor failed twice");
            self.report.push(crate::ChildStop {
                path: slot.node.identity.path.clone(),
                outcome: crate::StopOutcome::Leaked,
                took: std::time::Duration::ZERO,
                budget: slot.spec.shutdown,
            });
        }
    }

    pub(super) fn into_ended(self) -> Ended {
        for deferred in self.inbox {
            if let Deferred::Operation(request) = deferred {
                let _ = request.reply.send(Err(crate::OperationError::Stopping));
            }
        }
        Ended {
            exit: self.ending.unwrap_or(Exit::Shutdown),
            below: self.report,
            stop_took: self.ending_since.map(|since| since.elapsed()).unwrap_or_default(),
            ignored: false,
            leaked_tasks: Vec::new(),
        }
    }
}

/// Tells all who wait for a plan why it will not be carried out.
fn tell(plan: Plan, why: &crate::OperationError) {
    let asked = match plan.goal {
        Goal::Operation { reply, .. } => Some(reply),
        _ => None,
    };
    for reply in plan.waiters.into_iter().map(|(_, reply)| reply).chain(asked) {
        // The caller may have gone.
        let _ = reply.send(Err(why.clone()));
    }
}

async fn stop_request(stop: &mut tokio::sync::watch::Receiver<Option<StopRequest>>, heard: bool) -> StopRequest {
    if heard && stop.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    let request = match stop.wait_for(Option::is_some).await {
        Ok(request) => request.clone(),
        // Its own life holds a handle, so this cannot be.
        Err(_) => None,
    };
    request.unwrap_or(StopRequest { deadline: None, span: tracing::Span::none() })
}
