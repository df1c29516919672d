//! What a supervisor answers to those who administer it.

use super::{ChildId, Held, Model, State, SupervisorId, Then, start_stop::Attempt};
use crate::otp::{
    options::{ChildOptions, Restart, StartStep},
    scenario::{Action, Place},
};

impl Model<'_> {
    pub(super) fn serve(&mut self, id: SupervisorId, call: usize, action: Action) {
        let known = action.places().first().and_then(|place| self.known(id, place));
        let answer = match &action {
            Action::Count(_) => self.count(id),
            Action::Spawn(place) => {
                let template = self.supervisors[id.0].template.as_ref();
                let options = template.map(|template| template.as_child()).unwrap_or_default();
                return self.start_new(id, place, options, call, &action);
            }
            Action::Add { options, .. } if self.is_refused(id, options) => "error bad_combination".to_owned(),
            Action::Add { place, options, .. } => match known {
                None => return self.start_new(id, place, options.clone(), call, &action),
                Some(known) if self.children[known.0].seems_up() => "error already_started".to_owned(),
                Some(_) => "error already_present".to_owned(),
            },
            _ => match self.operate(id, &action, known) {
                Some(answer) => answer,
                None => return self.start_known(id, known, call, &action),
            },
        };
        self.answer(call, answer);
    }

    /// Stops, deletes or refuses to start a child; none if it is to be started.
    fn operate(&mut self, id: SupervisorId, action: &Action, known: Option<ChildId>) -> Option<String> {
        let is_terminate = matches!(action, Action::Terminate(_));
        if self.supervisors[id.0].template.is_some() {
            let ever_ran = action.places().first().is_some_and(|place| self.latest.contains_key(place));
            if !is_terminate || !ever_ran {
                return Some("error simple_one_for_one".to_owned());
            }
            if known.is_none() {
                return Some("ok".to_owned());
            }
        }
        let Some(child) = known else { return Some("error not_found".to_owned()) };
        if is_terminate {
            if let Err(reason) = self.stop_child(id, child) {
                self.report(id, "shutdown_error", child, reason);
            }
            self.forget(id, child);
            return Some("ok".to_owned());
        }
        match self.children[child.0].state {
            State::Up | State::Dead(_) => Some("error running".to_owned()),
            State::Restarting => Some("error restarting".to_owned()),
            State::Down if matches!(action, Action::Delete(_)) => {
                self.supervisors[id.0].children.retain(|known| *known != child);
                Some("ok".to_owned())
            }
            State::Down => None,
        }
    }

    fn start_new(&mut self, id: SupervisorId, place: &Place, options: ChildOptions, call: usize, action: &Action) {
        let child = self.new_child(place.clone(), options, false);
        self.start_known(id, Some(child), call, action);
    }

    fn start_known(&mut self, id: SupervisorId, child: Option<ChildId>, call: usize, action: &Action) {
        let Some(child) = child else { return };
        let step = self.next_step(child);
        if step.is_held() {
            self.held = Some(Held { child, step, then: Then::Answer(call, action.clone()) });
        } else {
            self.answer_start(id, child, step, call, action);
        }
    }

    /// Starts a child for a call and answers it. A new child is kept if that went well.
    pub(super) fn answer_start(
        &mut self,
        id: SupervisorId,
        child: ChildId,
        step: StartStep,
        call: usize,
        action: &Action,
    ) {
        let attempt = self.attempt(child, step);
        let keeps_ignored = self.children[child.0].options.restart != Restart::Temporary;
        let is_kept = match (action, &attempt) {
            (Action::Spawn(_) | Action::Add { .. }, Attempt::Up) => true,
            (Action::Add { .. }, Attempt::Ignored) => keeps_ignored,
            _ => false,
        };
        if is_kept {
            self.supervisors[id.0].children.push(child);
        }
        let answer = match attempt {
            Attempt::Up => "ok".to_owned(),
            Attempt::Ignored => "ok undefined".to_owned(),
            Attempt::Failed(failure) => format!("error {failure}"),
        };
        self.answer(call, answer);
    }

    fn count(&self, id: SupervisorId) -> String {
        let supervisor = &self.supervisors[id.0];
        let children: Vec<_> = supervisor.children.iter().map(|child| &self.children[child.0]).collect();
        let active = children.iter().filter(|child| child.state == State::Up).count();
        let supervisors = children.iter().filter(|child| child.is_supervisor).count();
        let specs = if supervisor.template.is_some() { 1 } else { children.len() };
        format!("specs={specs} active={active} supervisors={supervisors} workers={}", children.len() - supervisors)
    }

    fn known(&self, id: SupervisorId, place: &Place) -> Option<ChildId> {
        self.supervisors[id.0].children.iter().copied().find(|child| self.children[child.0].place.id() == place.id())
    }

    fn answer(&mut self, call: usize, answer: String) {
        if let Some(call) = self.calls.get_mut(call) {
            call.answer = Some(answer);
        }
    }
}
