//! What operators do to children.

use super::{
    Operation, Request,
    state::{Goal, Sequence, State, Step, Supervisor},
};
use crate::{
    ChildSpec, OperationError, Restart, Status, Strategy,
    process::{Drill, Process},
};

type Reply = tokio::sync::oneshot::Sender<Result<(), OperationError>>;

impl Supervisor {
    /// Carries out an operation here, or hands it down to the supervisor it is for.
    pub(super) fn operate(&mut self, request: Request) {
        if self.ending.is_some() {
            return answer(request.reply, Err(OperationError::Stopping));
        }
        match (request.path.as_slice(), &request.operation) {
            ([], Operation::Add(_)) => self.add(request),
            ([], _) => answer(request.reply, Err(OperationError::IsRoot)),
            (
                [_],
                Operation::Restart | Operation::Stop | Operation::Start | Operation::Delete | Operation::Drill(_),
            ) => {
                self.operate_child(request);
            }
            _ => self.hand_down(request),
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
        if let Operation::Drill(drill) = request.operation {
            return self.drill(sequence, drill, request.reply);
        }
        if self.must_wait(sequence, &request.operation) {
            return self.queued.push_back(request);
        }
        self.leave_restart(sequence);
        match request.operation {
            Operation::Restart => self.restart_by_hand(sequence, request.reply),
            Operation::Stop => {
                let goal = Goal::Operation { reply: request.reply, then: Status::StoppedByHand };
                self.begin(goal, [Step::Stop(vec![sequence])]);
                self.remove_stopped_temporary(sequence);
            }
            Operation::Start => self.start_by_hand(sequence, request.reply),
            _ => self.delete(sequence, request.reply),
        }
    }

    /// Under a group strategy an operation waits for the plan in progress, unless it cancels just what that waits for.
    fn must_wait(&self, sequence: Sequence, operation: &Operation) -> bool {
        let Some(slot) = self.slots.get(&sequence) else { return false };
        let own_plan = slot.plan.and_then(|id| self.plans.get(&id)).map(|plan| &plan.goal);
        match own_plan {
            Some(Goal::Restart) if self.is_group() => {
                !(matches!(operation, Operation::Stop) && matches!(slot.state, State::Waiting | State::Starting { .. }))
            }
            Some(Goal::Restart) => !matches!(operation, Operation::Restart | Operation::Stop),
            Some(Goal::Boot | Goal::End | Goal::Operation { .. }) => true,
            None => self.is_group_at_work(),
        }
    }

    fn restart_by_hand(&mut self, sequence: Sequence, reply: Reply) {
        self.forget_failures(sequence);
        let goal = Goal::Operation { reply, then: Status::Down };
        self.begin(goal, [Step::Stop(vec![sequence]), Step::Start(sequence)]);
    }

    fn start_by_hand(&mut self, sequence: Sequence, reply: Reply) {
        match self.slots.get(&sequence).map(|slot| &slot.state) {
            Some(State::Down | State::Waiting) => {
                self.forget_failures(sequence);
                self.cancel_timer(sequence);
                if let Some(slot) = self.slots.get_mut(&sequence) {
                    slot.become_(State::Down, Status::Down);
                }
                self.begin(Goal::Operation { reply, then: Status::Down }, [Step::Start(sequence)]);
            }
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
            .is_some_and(|slot| slot.is_added && slot.incarnation() == 1 && !matches!(slot.state, State::Leaked));
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
            self.recovered(sequence, incarnation);
        }
    }

    fn delete(&mut self, sequence: Sequence, reply: Reply) {
        match self.slots.get(&sequence).map(|slot| &slot.state) {
            Some(State::Down) => {
                self.remove_slot(sequence);
                answer(reply, Ok(()));
            }
            Some(State::Leaked) => answer(reply, Err(OperationError::Leaked)),
            _ => answer(reply, Err(OperationError::AlreadyRunning)),
        }
    }

    fn drill(&mut self, sequence: Sequence, drill: Drill, reply: Reply) {
        let process = self.slots.get(&sequence).filter(|slot| matches!(slot.state, State::Up { .. }));
        match process.and_then(|slot| slot.process.as_ref()) {
            Some(process) => {
                process.drill(drill);
                answer(reply, Ok(()));
            }
            None => answer(reply, Err(OperationError::NotRunning)),
        }
    }

    fn add(&mut self, request: Request) {
        if self.is_group_at_work() {
            return self.queued.push_back(request);
        }
        let Operation::Add(spec) = request.operation else { return };
        if let Err(error) = self.check_addition(&spec) {
            return answer(request.reply, Err(error));
        }
        let sequence = self.add_slot(*spec);
        if let Some(slot) = self.slots.get_mut(&sequence) {
            slot.is_added = true;
        }
        self.begin(Goal::Operation { reply: request.reply, then: Status::Down }, [Step::Start(sequence)]);
    }

    fn check_addition(&self, spec: &ChildSpec) -> Result<(), OperationError> {
        if let Some(fault) = spec.faults.first() {
            return Err(OperationError::BadSpec { reason: fault.to_string() });
        }
        if let Some(reason) = self.spec.check_child(spec).first() {
            return Err(OperationError::BadSpec { reason: (*reason).to_owned() });
        }
        if self.by_id.contains_key(&spec.id) {
            return Err(OperationError::AlreadyPresent);
        }
        match self.spec.strategy {
            Strategy::Dynamic { max_children } if self.slots.len() >= max_children => {
                Err(OperationError::TooManyChildren { max_children })
            }
            _ => Ok(()),
        }
    }

    /// A temporary child that was down when it was stopped by hand is gone as well.
    fn remove_stopped_temporary(&mut self, sequence: Sequence) {
        let gone = self
            .slots
            .get(&sequence)
            .is_some_and(|slot| slot.spec.restart == Restart::Temporary && matches!(slot.state, State::Down));
        if gone {
            self.remove_slot(sequence);
        }
    }
}

/// The caller may have gone; then there is no one to tell.
fn answer(reply: Reply, result: Result<(), OperationError>) {
    let _ = reply.send(result);
}
