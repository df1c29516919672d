//! The events of our supervisors as OTP's would report them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use supervision::{Event, EventKind, Exit, Path};

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

/// What somebody does to a child by hand. Of a start that fails then, its supervisor has nothing to report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Errand {
    Start(Place),
    Stop(Place),
}

#[derive(Default)]
struct Seen {
    /// Supervisors whose children have all been started.
    serving: BTreeSet<Place>,
    /// Children that come up again by themselves.
    restarting: BTreeSet<Place>,
    /// What was asked for and is not answered yet.
    errands: Vec<Errand>,
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

    /// Somebody asks for it.
    pub fn asked(&self, errand: &Errand) {
        if let Errand::Start(place) = errand
            && self.stage.is_held_at(place)
        {
            // Its supervisor is at it already.
            self.seen().restarting.insert(place.clone());
        }
        self.seen().errands.push(errand.clone());
    }

    /// What was asked for is answered.
    pub fn answered(&self, errand: &Errand) {
        let mut seen = self.seen();
        if let Some(index) = seen.errands.iter().position(|known| known == errand) {
            seen.errands.remove(index);
        }
    }

    /// Takes an event, in the order of events.
    pub fn see(&self, event: &Event) {
        let place = place(&event.path);
        match &event.kind {
            EventKind::Started { .. } => self.started(&place),
            EventKind::StartFailed { exit } => self.start_failed(&place, exit),
            EventKind::Exited { exit } => self.exited(&place, exit),
            EventKind::Stopped { .. } => self.stopped(&place),
            EventKind::GaveUp { child, .. } if self.seen().serving.contains(&place) => {
                self.report(&place, "shutdown", &self::place(child), "reached_max_restart_intensity");
            }
            _ => {}
        }
    }

    fn started(&self, place: &Place) {
        self.seen().restarting.remove(place);
        if self.is_supervisor(place) {
            self.stage.started(place);
            self.seen().serving.insert(place.clone());
        }
    }

    fn start_failed(&self, place: &Place, exit: &Exit) {
        if self.is_supervisor(place) {
            self.stage.write(format!("start {place} error"));
        }
        let is_by_hand = {
            let mut seen = self.seen();
            let is_by_hand = seen.errands.contains(&Errand::Start(place.clone())) && !seen.restarting.contains(place);
            if !is_by_hand {
                seen.restarting.insert(place.clone());
            }
            is_by_hand
        };
        if !is_by_hand {
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
        if restart == Restart::Permanent || (restart == Restart::Transient && !reason.is_orderly()) {
            self.seen().restarting.insert(place.clone());
        }
    }

    fn stopped(&self, place: &Place) {
        self.supervisor_ended(place, &Exit::Shutdown);
        self.seen().restarting.remove(place);
        let Some(reason) = self.stage.take_bad_end(place) else { return };
        let is_by_hand = self.seen().errands.contains(&Errand::Stop(place.clone()));
        if self.template().is_some() && !is_by_hand {
            *self.seen().bad_ends.entry(reason.to_string()).or_default() += 1;
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
