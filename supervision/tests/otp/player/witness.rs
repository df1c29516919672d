//! The events of our supervisors as OTP's would report them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use supervision::{Event, EventKind, Exit, Path, StopOutcome};

use super::stage::Stage;
use crate::otp::{
    options::{Restart, Strategy},
    scenario::{Place, Reason, Scenario},
};

/// Writes down what the supervisors do. What happens to workers they write themselves. Cheap to clone.
#[derive(Clone)]
pub struct Witness {
    stage: Stage,
    scenario: Arc<Scenario>,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    /// Supervisors whose children have all been started.
    serving: BTreeSet<Place>,
    /// Children whose stop was asked for, and that is not answered yet.
    stopped_by_hand: BTreeSet<Place>,
    /// Bad ends of dynamic children when their supervisor stops, by reason.
    bad_ends: BTreeMap<String, usize>,
}

impl Witness {
    /// One that has seen nothing yet.
    pub fn new(stage: Stage, scenario: &Scenario) -> Self {
        Self { stage, scenario: Arc::new(scenario.clone()), seen: Arc::default() }
    }

    /// The root has started all its children.
    pub fn root_started(&self) {
        self.seen().serving.insert(Place::root());
        self.stage.write("start /#1 ok");
    }

    /// The root is gone. The children of a dynamic one stop all at once: their order means nothing, and their bad ends
    /// are reported together.
    pub fn root_ended(&self, log: &mut Vec<String>) {
        if let Some(template) = self.template() {
            let is_exit = |line: &&String| line.starts_with("exit ");
            let exits = log.iter().rev().take_while(is_exit).count();
            let first = log.len() - exits;
            log[first..].sort();
            let bad_ends = std::mem::take(&mut self.seen().bad_ends);
            let report = |(reason, count)| format!("! / shutdown_error {template} x{count} {reason}");
            log.extend(bad_ends.into_iter().map(report));
        }
        log.push("exit /#1 shutdown".to_owned());
    }

    /// Somebody asks for the stop of a child.
    pub fn asked_to_stop(&self, place: &Place) {
        self.seen().stopped_by_hand.insert(place.clone());
    }

    /// That is answered.
    pub fn answered(&self, place: &Place) {
        self.seen().stopped_by_hand.remove(place);
    }

    /// Takes an event, in the order of events.
    pub fn see(&self, event: &Event) {
        let place = place(&event.path);
        match &event.kind {
            EventKind::Started { .. } => self.started(&place),
            EventKind::StartFailed { exit, by_hand } => self.start_failed(&place, exit, *by_hand),
            EventKind::Exited { exit } => self.exited(&place, exit),
            EventKind::Stopped { outcome, .. } => self.stopped(&place, outcome),
            EventKind::GaveUp { child, .. } if self.seen().serving.contains(&place) => {
                self.report(&place, "shutdown", &self::place(child), "reached_max_restart_intensity");
            }
            _ => {}
        }
    }

    fn started(&self, place: &Place) {
        if self.is_supervisor(place) {
            self.stage.started(place);
            self.seen().serving.insert(place.clone());
        }
    }

    fn start_failed(&self, place: &Place, exit: &Exit, by_hand: bool) {
        if self.is_supervisor(place) {
            self.stage.write(format!("start {place} error"));
        }
        if !by_hand {
            self.report(&place.parent(), "start_error", place, start_failure(place, exit));
        }
    }

    fn exited(&self, place: &Place, exit: &Exit) {
        self.supervisor_ended(place, exit);
        let reason = self.stage.take_end(place).unwrap_or_else(|| reason(exit));
        let restart = self.stage.options(place).restart;
        if restart == Restart::Permanent || !reason.is_orderly() {
            self.report(&place.parent(), "child_terminated", place, &reason);
        }
    }

    fn stopped(&self, place: &Place, outcome: &StopOutcome) {
        self.supervisor_ended(place, &Exit::Shutdown);
        let reason = self.stage.take_end(place);
        if *outcome == StopOutcome::Stopped {
            return;
        }
        let reason = reason.map_or_else(|| outcome.label().to_owned(), |reason| reason.to_string());
        if self.template().is_some() && !self.seen().stopped_by_hand.contains(place) {
            *self.seen().bad_ends.entry(reason).or_default() += 1;
        } else {
            self.report(&place.parent(), "shutdown_error", place, &reason);
        }
    }

    fn supervisor_ended(&self, place: &Place, exit: &Exit) {
        if self.seen().serving.remove(place) {
            self.stage.ended(place, reason(exit));
        }
    }

    fn report(&self, supervisor: &Place, context: &str, child: &Place, reason: impl std::fmt::Display) {
        let template = self.template();
        let id = template.as_deref().unwrap_or_else(|| child.id());
        self.stage.write(format!("! {supervisor} {context} {id} {reason}"));
    }

    fn is_supervisor(&self, place: &Place) -> bool {
        self.scenario.supervisor(place).is_some()
    }

    /// The id of the root's template, if it has one.
    fn template(&self) -> Option<String> {
        let root = Place::root();
        let is_simple = self.scenario.supervisor(&root)?.strategy == Strategy::SimpleOneForOne;
        let template = self.scenario.children_of(&root).next().filter(|_| is_simple)?;
        Some(template.place.id().to_owned())
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A path of ours, as scenarios write it.
fn place(path: &Path) -> Place {
    Place::parse(path.as_str()).unwrap_or_else(Place::root)
}

/// An exit of ours, in OTP's words. A failure of a worker has the scenario's own word.
fn reason(exit: &Exit) -> Reason {
    match exit {
        Exit::Normal => Reason::Normal,
        Exit::Shutdown => Reason::Shutdown,
        Exit::ShutdownWith(word) => Reason::ShutdownWith(word.clone()),
        Exit::Killed => Reason::Killed,
        Exit::Error(word) => Reason::Abnormal(word.clone()),
        other => Reason::Abnormal(other.cause().to_owned()),
    }
}

/// Why the child at `place` did not start, told as OTP does: down to the deepest child that failed.
pub fn start_failure(place: &Place, exit: &Exit) -> String {
    let (mut exit, mut deepest) = (exit, place.clone());
    while let Exit::GaveUp { path, cause } = exit {
        (exit, deepest) = (cause, self::place(path));
    }
    let mut way = String::new();
    let mut at = deepest;
    while at != *place {
        way = format!("failed_to_start:{}:{way}", at.id());
        at = at.parent();
    }
    format!("{way}{}", reason(exit))
}
