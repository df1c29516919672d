//! Plans: what a supervisor does in steps, each of which may have to wait for children.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::{
    Answer, Reply,
    slot::State,
    state::{Deferred, Sequence, Supervisor, Timer},
};
use crate::{Exit, LossReason, OperationError, Status, node::millis};

pub(super) type PlanId = u64;

/// A sequence of steps towards one end.
pub(super) struct Plan {
    pub(super) goal: Goal,
    pub(super) steps: VecDeque<Step>,
    /// Children the current step waits for.
    pub(super) open: usize,
    /// The current step is a pause.
    pub(super) is_paused: bool,
    /// Operators who asked for what it does already.
    pub(super) waiters: Vec<(Sequence, Reply)>,
}

/// What a plan is for.
pub(super) enum Goal {
    /// The first start of all children.
    Boot,
    /// The restart of a child, with its group where the strategy says so.
    Restart { due: Instant },
    /// The stop of a child that is stuck, to be restarted.
    Unstick { sequence: Sequence, exit: Exit, uptime: Duration },
    /// The end of the supervisor.
    End,
    /// An operator's wish.
    Operation { sequence: Sequence, reply: Reply, then: Status },
}

pub(super) enum Step {
    /// Stop this child.
    Stop(Sequence),
    /// Stop these, all at once.
    StopAll(Vec<Sequence>),
    /// Let this child wait.
    Pause(Sequence, Duration),
    /// Start this child.
    Start(Sequence),
    /// Stop and start the group of this child, as it is then: others may have come while it waited.
    Group(Sequence),
}

impl Supervisor {
    /// Begins a plan and takes it as far as it goes without waiting.
    pub(super) fn begin(&mut self, goal: Goal, steps: impl IntoIterator<Item = Step>) {
        let id = self.next_plan;
        self.next_plan += 1;
        let (steps, waiters) = (steps.into_iter().collect(), Vec::new());
        self.plans.insert(id, Plan { goal, steps, open: 0, is_paused: false, waiters });
        self.advance(id);
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
    pub(super) fn abandon(&mut self, id: PlanId, why: OperationError) {
        if let Some(plan) = self.take_plan(id) {
            self.refuse(plan, why);
        }
    }

    /// Forgets a plan for one that starts the same children: their addresses go on waiting.
    pub(super) fn replace(&mut self, id: PlanId) {
        if let Some(plan) = self.take_plan(id) {
            tell(plan, &OperationError::Superseded);
        }
    }

    fn take_plan(&mut self, id: PlanId) -> Option<Plan> {
        for slot in self.slots.values_mut().filter(|slot| slot.plan == Some(id)) {
            slot.plan = None;
        }
        self.plans.remove(&id)
    }

    /// A plan will not be carried out, or not to its end.
    pub(super) fn refuse(&self, plan: Plan, why: OperationError) {
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

    fn begin_pause(&mut self, sequence: Sequence, delay: Duration, id: PlanId) -> bool {
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
}

/// Tells all who wait for a plan why it will not be carried out.
fn tell(plan: Plan, why: &OperationError) {
    let asked = match plan.goal {
        Goal::Operation { reply, .. } => Some(reply),
        _ => None,
    };
    for reply in plan.waiters.into_iter().map(|(_, reply)| reply).chain(asked) {
        // The caller may have gone.
        let _ = reply.send(Err(why.clone()));
    }
}
