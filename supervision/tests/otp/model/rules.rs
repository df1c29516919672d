//! What follows when a child has ended by itself, and how much of that a supervisor bears.

use super::{ChildId, Mail, Model, ROOT, State, SupervisorId, Then, start_stop::Group};
use crate::otp::options::{AutoShutdown, Restart, Strategy};

impl Model<'_> {
    pub(super) fn has_work(&self, id: SupervisorId) -> bool {
        let supervisor = &self.supervisors[id.0];
        let is_held = id == ROOT && self.held.is_some();
        !is_held && !supervisor.has_ended && !supervisor.mailbox.is_empty()
    }

    /// Works through the mailbox.
    pub(super) fn work(&mut self, id: SupervisorId) {
        while self.has_work(id) {
            match self.supervisors[id.0].mailbox.pop_front() {
                Some(Mail::Ended(child)) => self.child_ended(id, child),
                Some(Mail::Retry(child)) => self.retry(id, child),
                Some(Mail::Stop) => self.end(id),
                Some(Mail::Call(call, action)) => self.serve(id, call, action),
                None => {}
            }
        }
    }

    /// Lets the held start go on, and then all that waited for it.
    pub(super) fn release(&mut self) -> Option<&'static str> {
        let Some(held) = self.held.take() else { return Some("not_held") };
        match held.then {
            Then::Answer(call, action) => self.answer_start(ROOT, held.child, held.step, call, &action),
            Then::Group(rest) => {
                let group = match self.start_member(ROOT, held.child, held.step) {
                    Ok(()) => self.start_group(ROOT, rest),
                    Err(failure) => Group::Failed(held.child, failure),
                };
                self.group_started(ROOT, group);
            }
        }
        None
    }

    fn child_ended(&mut self, id: SupervisorId, child_id: ChildId) {
        let child = &self.children[child_id.0];
        let State::Dead(reason) = child.state.clone() else { return };
        let (restart, is_significant) = (child.options.restart, child.options.significant);
        if restart == Restart::Permanent || !reason.is_orderly() {
            self.report(id, "child_terminated", child_id, &reason);
        }
        if restart == Restart::Permanent || (restart == Restart::Transient && !reason.is_orderly()) {
            return self.restart(id, child_id);
        }
        self.forget(id, child_id);
        let ends = match self.supervisors[id.0].options.auto_shutdown {
            AutoShutdown::Never => false,
            AutoShutdown::AnySignificant => is_significant,
            AutoShutdown::AllSignificant => is_significant && !self.has_significant(id),
        };
        if ends {
            self.end(id);
        }
    }

    /// Whether a significant child is up or comes up again.
    fn has_significant(&self, id: SupervisorId) -> bool {
        let mut children = self.supervisors[id.0].children.iter().map(|child| &self.children[child.0]);
        children.any(|child| child.options.significant && child.state != State::Down)
    }

    /// It is down; if it never comes back, its spec goes too.
    pub(super) fn forget(&mut self, id: SupervisorId, child: ChildId) {
        self.children[child.0].state = State::Down;
        let supervisor = &mut self.supervisors[id.0];
        if supervisor.template.is_some() || self.children[child.0].options.restart == Restart::Temporary {
            supervisor.children.retain(|known| *known != child);
        }
    }

    fn retry(&mut self, id: SupervisorId, child: ChildId) {
        let is_due = self.children[child.0].state == State::Restarting;
        if is_due && self.supervisors[id.0].children.contains(&child) {
            self.restart(id, child);
        }
    }

    fn restart(&mut self, id: SupervisorId, child: ChildId) {
        if self.is_too_much(id) {
            self.report(id, "shutdown", child, "reached_max_restart_intensity");
            self.forget(id, child);
            return self.end(id);
        }
        self.children[child.0].state = State::Down;
        let group = self.group_of(id, child);
        let siblings =
            !matches!(self.supervisors[id.0].options.strategy, Strategy::OneForOne | Strategy::SimpleOneForOne);
        if siblings {
            self.stop_all(id, group.clone());
        }
        let group = group.into_iter().filter(|member| self.supervisors[id.0].children.contains(member)).collect();
        let outcome = self.start_group(id, group);
        self.group_started(id, outcome);
    }

    /// Counts a restart, or a further attempt at one.
    fn is_too_much(&mut self, id: SupervisorId) -> bool {
        let now = self.clock_ms / 1000;
        let supervisor = &mut self.supervisors[id.0];
        let period = supervisor.options.period_secs;
        supervisor.stamps.retain(|stamp| stamp.saturating_add(period) >= now);
        supervisor.stamps.push(now);
        supervisor.stamps.len() > supervisor.options.intensity as usize
    }

    fn group_of(&self, id: SupervisorId, child: ChildId) -> Vec<ChildId> {
        let supervisor = &self.supervisors[id.0];
        match supervisor.options.strategy {
            Strategy::OneForOne | Strategy::SimpleOneForOne => vec![child],
            Strategy::OneForAll => supervisor.children.clone(),
            Strategy::RestForOne => supervisor.children.iter().copied().skip_while(|known| *known != child).collect(),
        }
    }

    /// The retry of what failed is queued behind the calls that wait.
    fn group_started(&mut self, id: SupervisorId, outcome: Group) {
        if let Group::Failed(child, _) = outcome {
            self.children[child.0].state = State::Restarting;
            self.supervisors[id.0].mailbox.push_back(Mail::Retry(child));
        }
    }
}
