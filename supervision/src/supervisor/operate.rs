//! What operators do to children.

use super::{
    Answer, Operation, Reply, Request,
    plan::{Goal, Plan, Step},
    slot::State,
    state::{Deferred, Sequence, Supervisor},
};
use crate::{ChildSpec, Counts, Kind, OperationError, Status, Strategy, process::Process};

/// Operations that may wait for children that are being started or stopped, beside one end of each child.
const DEFERRED_MAX: usize = 1024;

impl Supervisor {
    /// Carries out an operation here, or hands it down to the supervisor it is for.
    pub(super) fn operate(&mut self, request: Request) {
        if self.ending.is_some() {
            return answer(request.reply, Err(OperationError::Stopping));
        }
        if self.spec.is_serial && self.is_at_work() && self.is_own(&request) {
            return self.defer(request);
        }
        match (request.path.as_slice(), &request.operation) {
            ([], Operation::Add(_)) => self.add(request),
            ([], Operation::Count) => self.count(request),
            ([], _) => answer(request.reply, Err(OperationError::IsRoot)),
            ([_], Operation::Add(_) | Operation::Count) => self.hand_down(request),
            ([_], _) => self.operate_child(request),
            _ => self.hand_down(request),
        }
    }

    /// Lets an operation wait for what is in progress, unless too many do: each is looked at again with every input.
    fn defer(&mut self, request: Request) {
        if self.inbox.len() >= DEFERRED_MAX + self.slots.len() {
            return answer(request.reply, Err(OperationError::Busy));
        }
        self.inbox.push_back(Deferred::Operation(request));
    }

    /// True if this supervisor is to serve it, and one that does one thing at a time in its turn.
    fn is_own(&self, request: &Request) -> bool {
        match (&request.operation, request.path.len()) {
            (Operation::Kill | Operation::Drill(_) | Operation::Stuck(_), _) => false,
            (Operation::Add(_) | Operation::Count, below) => below == 0,
            (_, below) => below == 1,
        }
    }

    fn hand_down(&mut self, mut request: Request) {
        let id = request.path.remove(0);
        match self.by_id.get(&id).and_then(|sequence| self.slots.get(sequence)) {
            None => answer(request.reply, Err(OperationError::NotFound)),
            Some(slot) => match &slot.process {
                Some(Process::Supervisor(control)) => control.operate(request),
                Some(_) => answer(request.reply, Err(OperationError::NotFound)),
                None => answer(request.reply, Err(OperationError::NotRunning)),
            },
        }
    }

    fn operate_child(&mut self, request: Request) {
        let Some(sequence) = self.by_id.get(&request.path[0]).copied() else {
            return answer(request.reply, Err(OperationError::NotFound));
        };
        match request.operation {
            Operation::Drill(drill) => {
                return self.with_process(sequence, request.reply, |process| process.drill(drill));
            }
            Operation::Kill => return self.with_process(sequence, request.reply, Process::kill),
            Operation::Stuck(place) => return answer(request.reply, self.is_stuck(sequence, place)),
            _ if self.must_wait(sequence, &request.operation) => return self.defer(request),
            _ => {}
        }
        match request.operation {
            Operation::Restart => self.restart_by_hand(sequence, request.reply),
            Operation::Stop => self.stop_by_hand(sequence, request.reply),
            Operation::Start => self.start_by_hand(sequence, request.reply),
            _ => self.delete(sequence, request.reply),
        }
    }

    /// An operation waits for the plan in progress, unless that waits itself, or is one that it may cancel.
    fn must_wait(&self, sequence: Sequence, operation: &Operation) -> bool {
        let Some(slot) = self.slots.get(&sequence) else { return false };
        let Some(plan) = slot.plan.and_then(|id| self.plans.get(&id)) else { return self.is_at_work() };
        match plan.goal {
            Goal::Restart { .. } if plan.is_paused => matches!(operation, Operation::Restart) && self.is_at_work(),
            Goal::Restart { .. } if self.is_group() => {
                !(matches!(operation, Operation::Stop) && matches!(slot.state, State::Starting { .. }))
            }
            Goal::Restart { .. } => !matches!(operation, Operation::Restart | Operation::Stop),
            Goal::Boot | Goal::End | Goal::Operation { .. } | Goal::Unstick { .. } => true,
        }
    }

    fn restart_by_hand(&mut self, sequence: Sequence, reply: Reply) {
        self.forget_failures(sequence);
        if let Some(plan) = self.paused_plan(sequence) {
            // What it waits for comes now, with all of its group.
            plan.waiters.push((sequence, reply));
            self.cancel_timer(sequence);
            return self.pause_over(sequence);
        }
        self.leave_restart(sequence);
        let goal = Goal::Operation { sequence, reply, then: Status::Down };
        self.begin(goal, [Step::Stop(sequence), Step::Start(sequence)]);
    }

    /// The restart for which this child waits.
    fn paused_plan(&mut self, sequence: Sequence) -> Option<&mut Plan> {
        let slot = self.slots.get(&sequence).filter(|slot| matches!(slot.state, State::Waiting))?;
        self.plans.get_mut(&slot.plan?)
    }

    fn stop_by_hand(&mut self, sequence: Sequence, reply: Reply) {
        self.leave_restart(sequence);
        if let Some(slot) = self.slots.get_mut(&sequence).filter(|slot| matches!(slot.state, State::Leaked)) {
            // Nothing can end it; but it will not come back.
            (slot.comes_back, slot.is_unwanted) = (None, true);
            return answer(reply, Err(OperationError::Leaked));
        }
        let goal = Goal::Operation { sequence, reply, then: Status::StoppedByHand };
        self.begin(goal, [Step::Stop(sequence)]);
        // One that was down already.
        self.forget_if_temporary(sequence);
    }

    fn start_by_hand(&mut self, sequence: Sequence, reply: Reply) {
        if self.is_dynamic() && self.spec.forgets_stopped {
            return answer(reply, Err(OperationError::DynamicChild));
        }
        match self.slots.get(&sequence).map(|slot| &slot.state) {
            Some(State::Down) => {
                self.forget_failures(sequence);
                self.begin(Goal::Operation { sequence, reply, then: Status::Down }, [Step::Start(sequence)]);
            }
            Some(State::Waiting) => answer(reply, Err(OperationError::Restarting)),
            Some(State::Leaked) => answer(reply, Err(OperationError::Leaked)),
            Some(_) => answer(reply, Err(OperationError::AlreadyRunning)),
            None => answer(reply, Err(OperationError::NotFound)),
        }
    }

    /// A child that an operator could not start stays down; one that was being added is not kept.
    pub(super) fn operation_start_failed(&mut self, sequence: Sequence) {
        let forgotten = self
            .slots
            .get(&sequence)
            .is_some_and(|slot| slot.is_added && slot.incarnation() <= 1 && !matches!(slot.state, State::Leaked));
        if forgotten {
            self.remove_slot(sequence);
        }
    }

    fn forget_failures(&mut self, sequence: Sequence) {
        let Some(slot) = self.slots.get_mut(&sequence) else { return };
        slot.attempt = 0;
        if let Some(window) = &mut slot.window {
            window.clear();
        }
        let incarnation = slot.incarnation();
        if slot.node.data().degraded {
            if matches!(slot.state, State::Up { .. }) {
                // What would have said so later.
                self.cancel_timer(sequence);
            }
            self.recovered(sequence, incarnation);
        }
    }

    fn delete(&mut self, sequence: Sequence, reply: Reply) {
        if self.is_dynamic() && self.spec.forgets_stopped {
            return answer(reply, Err(OperationError::DynamicChild));
        }
        match self.slots.get(&sequence).map(|slot| &slot.state) {
            Some(State::Down) => {
                self.remove_slot(sequence);
                answer(reply, Ok(Answer::Done));
            }
            Some(State::Waiting) => answer(reply, Err(OperationError::Restarting)),
            Some(State::Leaked) => answer(reply, Err(OperationError::Leaked)),
            _ => answer(reply, Err(OperationError::AlreadyRunning)),
        }
    }

    fn with_process(&mut self, sequence: Sequence, reply: Reply, act: impl FnOnce(&Process)) {
        let process = self.slots.get(&sequence).filter(|slot| matches!(slot.state, State::Up { .. }));
        match process.and_then(|slot| slot.process.as_ref()) {
            Some(process) => {
                act(process);
                answer(reply, Ok(Answer::Done));
            }
            None => answer(reply, Err(OperationError::NotRunning)),
        }
    }

    fn add(&mut self, request: Request) {
        if self.is_at_work() {
            return self.defer(request);
        }
        let Operation::Add(spec) = request.operation else { return };
        if let Err(error) = self.check_addition(&spec) {
            Self::drop_caught(spec);
            return answer(request.reply, Err(error));
        }
        let sequence = self.add_slot(*spec);
        if let Some(slot) = self.slots.get_mut(&sequence) {
            slot.is_added = true;
        }
        let goal = Goal::Operation { sequence, reply: request.reply, then: Status::Down };
        self.begin(goal, [Step::Start(sequence)]);
    }

    fn count(&mut self, request: Request) {
        let supervisors = self.slots.values().filter(|slot| slot.spec.kind == Kind::Supervisor).count();
        let counts = Counts {
            specs: self.slots.len(),
            active: self
                .slots
                .values()
                .filter(|slot| matches!(slot.state, State::Up { .. } | State::Stopping(_)))
                .count(),
            supervisors,
            workers: self.slots.len() - supervisors,
        };
        answer(request.reply, Ok(Answer::Counted(counts)));
    }

    fn check_addition(&self, spec: &ChildSpec) -> Result<(), OperationError> {
        if let Some(fault) = spec.faults.first() {
            return Err(OperationError::BadSpec { reason: fault.to_string() });
        }
        if let Some(reason) = self.spec.check_child(spec).first() {
            return Err(OperationError::BadSpec { reason: (*reason).to_owned() });
        }
        if let Some(slot) = self.by_id.get(&spec.id).and_then(|sequence| self.slots.get(sequence)) {
            let is_running = !matches!(slot.state, State::Down | State::Waiting);
            return Err(if is_running { OperationError::AlreadyRunning } else { OperationError::AlreadyPresent });
        }
        match self.spec.strategy {
            Strategy::Dynamic { max_children } if self.slots.len() >= max_children => {
                Err(OperationError::TooManyChildren { max_children })
            }
            _ => Ok(()),
        }
    }
}

/// The caller may have gone; then there is no one to tell.
fn answer(reply: Reply, result: Result<Answer, OperationError>) {
    let _ = reply.send(result);
}
