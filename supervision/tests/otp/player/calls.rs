//! Calls to supervisors that are not answered yet: while a start is held, nobody answers.

use futures_util::{FutureExt, future::BoxFuture};
use supervision::{Counts, OperationError, Path, StartOutcome, Tree};

use super::{
    stage::Stage,
    tree,
    witness::{self, Witness},
};
use crate::otp::{
    options::{ChildOptions, Strategy},
    scenario::{Action, Place, Scenario},
};

/// In the order in which they were sent.
#[derive(Default)]
pub struct Calls(Vec<Call>);

struct Call {
    /// None if nobody waits for the answer.
    title: Option<String>,
    /// What the witness must know of while it is not answered.
    stopped: Option<Place>,
    state: State,
}

enum State {
    Waiting(BoxFuture<'static, String>),
    Answered(String),
}

/// To whom the calls go.
pub struct Callee<'a> {
    pub scenario: &'a Scenario,
    pub stage: &'a Stage,
    pub witness: &'a Witness,
    pub tree: &'a Tree,
}

impl Calls {
    /// Sends what the action asks for.
    pub fn send(&mut self, callee: &Callee<'_>, action: &Action) {
        let stopped = match action {
            Action::Terminate(place) => Some(place.clone()),
            _ => None,
        };
        stopped.iter().for_each(|place| callee.witness.asked_to_stop(place));
        let title = match action {
            Action::Add { place, .. } => format!("add {place}"),
            Action::Count(_) => "count".to_owned(),
            other => other.to_string(),
        };
        self.0.push(Call { title: Some(title), stopped, state: callee.call(action) });
    }

    /// Kills a child from outside.
    pub fn kill(&mut self, tree: &Tree, place: &Place) {
        let (tree, path) = (tree.clone(), path(place));
        let killed = async move { format!("{:?}", tree.kill_child(path).await) };
        self.0.push(Call { title: None, stopped: None, state: State::Waiting(killed.boxed()) });
    }

    /// Tells the root to stop.
    pub fn stop(&mut self, tree: &Tree) {
        let tree = tree.clone();
        let stopped = async move { format!("{:?}", tree.stop().await.took) };
        self.0.push(Call { title: None, stopped: None, state: State::Waiting(stopped.boxed()) });
    }

    /// Takes the answers that are there.
    pub fn poll(&mut self, callee: &Callee<'_>) {
        for call in &mut self.0 {
            let State::Waiting(answer) = &mut call.state else { continue };
            if let Some(answer) = answer.now_or_never() {
                call.state = State::Answered(answer);
                call.stopped.iter().for_each(|place| callee.witness.answered(place));
            }
        }
    }

    /// Whether nobody waits.
    pub fn are_answered(&self) -> bool {
        self.0.iter().all(|call| matches!(call.state, State::Answered(_)))
    }

    /// The lines of all answers; who is not answered by now never will be.
    pub fn take_replies(&mut self) -> Vec<String> {
        let replies = self.0.drain(..).filter_map(|call| match call.state {
            State::Answered(answer) => Some(format!("{}: {answer}", call.title?)),
            State::Waiting(_) => Some(format!("{}: gone", call.title?)),
        });
        replies.collect()
    }
}

impl Callee<'_> {
    fn call(&self, action: &Action) -> State {
        let Some(place) = action.places().first().cloned() else { return State::Answered(String::new()) };
        let (tree, path, terms) = (self.tree.clone(), path(&place), Terms::of(self, &place));
        let answer = match action {
            Action::Count(_) => async move { counted(tree.count_children(path).await, terms.is_dynamic) }.boxed(),
            Action::Terminate(_) => async move { terms.terminated(tree.stop_child(path).await) }.boxed(),
            Action::Delete(_) => async move { terms.done(tree.delete_child(path).await) }.boxed(),
            Action::Restart(_) => async move { terms.started(tree.start_child(path).await) }.boxed(),
            Action::Add { options, .. } => self.add(place, options.clone()),
            _ => {
                let template = self.scenario.children_of(&Place::root()).next();
                self.add(place, template.map(|template| template.as_child()).unwrap_or_default())
            }
        };
        State::Waiting(answer)
    }

    fn add(&self, place: Place, options: ChildOptions) -> BoxFuture<'static, String> {
        let (tree, stage, parent) = (self.tree.clone(), self.stage.clone(), path(&place.parent()));
        let spec = tree::worker(&stage, &place, &options);
        let add = async move {
            let result = tree.add_child(parent, spec).await;
            if result.is_ok() {
                stage.declare(&place, options);
            }
            added(&place, result)
        };
        add.boxed()
    }

    fn is_dynamic(&self) -> bool {
        let root = self.scenario.supervisor(&Place::root());
        root.is_some_and(|root| root.strategy == Strategy::SimpleOneForOne)
    }
}

/// What the answer means where it is about a dynamic child.
struct Terms {
    place: Place,
    is_dynamic: bool,
    ever_ran: bool,
}

impl Terms {
    fn of(callee: &Callee<'_>, place: &Place) -> Self {
        let (is_dynamic, ever_ran) = (callee.is_dynamic(), callee.stage.incarnation(place) > 0);
        Self { place: place.clone(), is_dynamic, ever_ran }
    }

    /// Who was an instance of the template and is gone need not be stopped.
    fn terminated(&self, result: Result<(), OperationError>) -> String {
        match result {
            Err(OperationError::NotFound) if self.is_dynamic && self.ever_ran => "ok".to_owned(),
            result => self.done(result),
        }
    }

    fn done(&self, result: Result<(), OperationError>) -> String {
        match result {
            Ok(()) => "ok".to_owned(),
            Err(error) => self.refused(&error),
        }
    }

    fn started(&self, result: Result<StartOutcome, OperationError>) -> String {
        match result {
            Ok(outcome) => start_answer(&outcome),
            Err(error) => self.refused(&error),
        }
    }

    fn refused(&self, error: &OperationError) -> String {
        match error {
            OperationError::Stopping => "gone".to_owned(),
            _ if self.is_dynamic => "error simple_one_for_one".to_owned(),
            OperationError::AlreadyRunning => "error running".to_owned(),
            OperationError::Restarting => "error restarting".to_owned(),
            OperationError::NotFound => "error not_found".to_owned(),
            OperationError::StartFailed { exit } => format!("error {}", witness::start_failure(&self.place, exit)),
            other => format!("error {other}"),
        }
    }
}

fn added(place: &Place, result: Result<StartOutcome, OperationError>) -> String {
    match result {
        Ok(outcome) => start_answer(&outcome),
        Err(OperationError::AlreadyRunning) => "error already_started".to_owned(),
        Err(OperationError::AlreadyPresent | OperationError::Restarting) => "error already_present".to_owned(),
        Err(OperationError::BadSpec { .. }) => "error bad_combination".to_owned(),
        Err(OperationError::StartFailed { exit }) => format!("error {}", witness::start_failure(place, &exit)),
        Err(OperationError::Stopping) => "gone".to_owned(),
        Err(other) => format!("error {other}"),
    }
}

fn start_answer(outcome: &StartOutcome) -> String {
    match outcome {
        StartOutcome::Ignored => "ok undefined".to_owned(),
        _ => "ok".to_owned(),
    }
}

fn counted(counts: Result<Counts, OperationError>, is_dynamic: bool) -> String {
    let Ok(Counts { specs, active, supervisors, workers }) = counts else { return "gone".to_owned() };
    // OTP has one spec for all instances.
    let specs = if is_dynamic { 1 } else { specs };
    format!("specs={specs} active={active} supervisors={supervisors} workers={workers}")
}

fn path(place: &Place) -> Path {
    if place.is_root() { Path::root() } else { Path::from(place.to_string().as_str()) }
}
