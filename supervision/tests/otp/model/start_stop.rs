//! How children are started in order, and stopped in reverse.

use std::collections::{BTreeMap, VecDeque};

use super::{Child, ChildId, Held, Mail, Model, State, Supervisor, SupervisorId, Then};
use crate::otp::{
    options::{AutoShutdown, ChildOptions, Restart, Shutdown, StartStep, StopManner, Strategy},
    scenario::{Declaration, Place, Reason},
};

/// What an attempt to start a child came to.
pub(super) enum Attempt {
    Up,
    Ignored,
    Failed(String),
}

/// What the start of several children came to.
pub(super) enum Group {
    Started,
    Failed(ChildId, String),
    Held,
}

impl Model<'_> {
    /// Starts the supervisor that is declared at `place`, with its children.
    pub(super) fn boot(&mut self, place: &Place) -> Result<SupervisorId, String> {
        let scenario = self.scenario;
        let options = scenario.supervisor(place).cloned().unwrap_or_default();
        let mut declared: Vec<&Declaration> = scenario.children_of(place).collect();
        let template = if options.strategy == Strategy::SimpleOneForOne { declared.pop().cloned() } else { None };
        let id = SupervisorId(self.supervisors.len());
        let children: Vec<ChildId> = declared.into_iter().map(|child| self.declared_child(child)).collect();
        self.supervisors.push(Supervisor {
            place: place.clone(),
            options,
            template,
            children: children.clone(),
            stamps: Vec::new(),
            mailbox: VecDeque::new(),
            has_ended: false,
        });
        let started = if children.iter().any(|child| self.is_refused(id, &self.children[child.0].options)) {
            Err("bad_spec:bad_combination".to_owned())
        } else {
            self.boot_children(id, children)
        };
        self.supervisors[id.0].has_ended = started.is_err();
        started.map(|()| id)
    }

    fn boot_children(&mut self, id: SupervisorId, children: Vec<ChildId>) -> Result<(), String> {
        match self.start_group(id, children.into()) {
            Group::Started => Ok(()),
            Group::Failed(child, failure) => {
                self.stop_all(id, self.supervisors[id.0].children.clone());
                Err(format!("failed_to_start:{}:{failure}", self.children[child.0].place.id()))
            }
            Group::Held => unreachable!("the format allows no first start to be held"),
        }
    }

    fn declared_child(&mut self, declaration: &Declaration) -> ChildId {
        let is_supervisor = declaration.supervisor().is_some();
        self.new_child(declaration.place.clone(), declaration.as_child(), is_supervisor)
    }

    pub(super) fn new_child(&mut self, place: Place, options: ChildOptions, is_supervisor: bool) -> ChildId {
        self.children.push(Child { place, options, incarnation: 0, state: State::Down, is_supervisor, runs: None });
        ChildId(self.children.len() - 1)
    }

    /// Whether the options contradict each other or the supervisor's.
    pub(super) fn is_refused(&self, supervisor: SupervisorId, options: &ChildOptions) -> bool {
        let never = self.supervisors[supervisor.0].options.auto_shutdown == AutoShutdown::Never;
        options.significant && (never || options.restart == Restart::Permanent)
    }

    /// Starts them in order, up to the first that fails or is held.
    pub(super) fn start_group(&mut self, supervisor: SupervisorId, mut group: VecDeque<ChildId>) -> Group {
        while let Some(child) = group.pop_front() {
            let step = self.next_step(child);
            if step.is_held() {
                self.held = Some(Held { child, step, then: Then::Group(group) });
                return Group::Held;
            }
            if let Err(failure) = self.start_member(supervisor, child, step) {
                return Group::Failed(child, failure);
            }
        }
        Group::Started
    }

    pub(super) fn start_member(
        &mut self,
        supervisor: SupervisorId,
        child: ChildId,
        step: StartStep,
    ) -> Result<(), String> {
        let is_dynamic = self.supervisors[supervisor.0].options.strategy == Strategy::SimpleOneForOne;
        match self.attempt(child, step) {
            Attempt::Up => {}
            // Since OTP 27 a dynamic child that declines at its restart is gone as well.
            Attempt::Ignored if is_dynamic || self.children[child.0].options.restart == Restart::Temporary => {
                self.supervisors[supervisor.0].children.retain(|known| *known != child);
            }
            Attempt::Ignored => {}
            Attempt::Failed(failure) => {
                self.report(supervisor, "start_error", child, &failure);
                return Err(failure);
            }
        }
        Ok(())
    }

    /// What the next attempt comes to; they are counted for the whole scenario.
    pub(super) fn next_step(&mut self, child: ChildId) -> StartStep {
        let child = &self.children[child.0];
        let attempts = self.attempts.entry(child.place.clone()).or_default();
        *attempts += 1;
        child.options.start.attempt(*attempts - 1)
    }

    pub(super) fn attempt(&mut self, child: ChildId, step: StartStep) -> Attempt {
        let place = self.children[child.0].place.clone();
        let (word, attempt) = match step.released() {
            StartStep::Ok if self.children[child.0].is_supervisor => match self.boot(&place) {
                Ok(supervisor) => return self.is_up(child, Some(supervisor)),
                Err(failure) => ("error", Attempt::Failed(failure)),
            },
            StartStep::Ignore => ("ignore", Attempt::Ignored),
            StartStep::Fail => ("error", Attempt::Failed("fail".to_owned())),
            _ => return self.is_up(child, None),
        };
        self.event(format!("start {place} {word}"));
        self.children[child.0].state = State::Down;
        attempt
    }

    fn is_up(&mut self, id: ChildId, runs: Option<SupervisorId>) -> Attempt {
        let child = &mut self.children[id.0];
        let incarnation = self.incarnations.entry(child.place.clone()).or_default();
        *incarnation += 1;
        (child.incarnation, child.state, child.runs) = (*incarnation, State::Up, runs);
        self.latest.insert(child.place.clone(), id);
        let line = format!("start {}#{incarnation} ok", child.place);
        self.event(line);
        Attempt::Up
    }

    /// Stops the children in reverse order, those of a simple_one_for_one all at once. Temporary ones are forgotten.
    pub(super) fn stop_all(&mut self, supervisor: SupervisorId, mut children: Vec<ChildId>) {
        let template = self.supervisors[supervisor.0].template.clone();
        match template {
            Some(_) => children.sort_by_key(|child| self.children[child.0].place.clone()),
            None => children.reverse(),
        }
        let mut bad_ends: BTreeMap<String, usize> = BTreeMap::new();
        for child in children {
            if let Err(reason) = self.stop_child(supervisor, child) {
                match &template {
                    Some(_) => *bad_ends.entry(reason.to_string()).or_default() += 1,
                    None => self.report(supervisor, "shutdown_error", child, reason),
                }
            }
            if self.children[child.0].options.restart == Restart::Temporary {
                self.supervisors[supervisor.0].children.retain(|known| *known != child);
            }
        }
        for (reason, count) in bad_ends {
            let id = template.as_ref().map_or("", |template| template.place.id());
            self.event(format!("! {} shutdown_error {id} x{count} {reason}", self.supervisors[supervisor.0].place));
        }
    }

    /// Stops a child, whatever its state; a bad end is returned as an error.
    pub(super) fn stop_child(&mut self, supervisor: SupervisorId, id: ChildId) -> Result<(), Reason> {
        if self.children[id.0].state == State::Up {
            self.end_child(id);
        } else {
            // Its end is known now, and not news any more.
            let is_old = |mail: &Mail| matches!(mail, Mail::Ended(child) if *child == id);
            self.supervisors[supervisor.0].mailbox.retain(|mail| !is_old(mail));
        }
        let child = &mut self.children[id.0];
        let State::Dead(reason) = std::mem::replace(&mut child.state, State::Down) else { return Ok(()) };
        let asked = if child.options.shutdown == Shutdown::BrutalKill { Reason::Killed } else { Reason::Shutdown };
        let is_good = reason == asked || (child.options.restart != Restart::Permanent && reason.is_orderly());
        if is_good { Ok(()) } else { Err(reason) }
    }

    fn end_child(&mut self, id: ChildId) {
        let child = &self.children[id.0];
        let reason = match (child.options.shutdown, child.options.stop) {
            (Shutdown::BrutalKill, _) | (_, StopManner::Hang) => Reason::Killed,
            (_, StopManner::Normal) => Reason::Normal,
            (_, StopManner::Bad) => Reason::Abnormal("bad".to_owned()),
            (_, StopManner::Clean | StopManner::Slow(_)) => Reason::Shutdown,
        };
        if let Some(supervisor) = child.runs {
            self.end(supervisor);
        }
        self.exit(id, reason);
    }

    /// The supervisor stops its children and ends, orderly.
    pub(super) fn end(&mut self, supervisor: SupervisorId) {
        self.stop_all(supervisor, self.supervisors[supervisor.0].children.clone());
        self.supervisors[supervisor.0].has_ended = true;
    }
}
