//! The rules of OTP's supervisor without processes: what happens in a scenario follows from it alone, step by step.
//!
//! A supervisor works through its mailbox. Only the root's can be interrupted, where a start is held: what is left to do
//! is then kept as [`Held`], and taken up when the start is released.

mod calls;
mod rules;
mod start_stop;

use std::collections::{BTreeMap, VecDeque};

use super::{
    options::{ChildOptions, StartStep, SupervisorOptions},
    scenario::{Action, Declaration, Place, Reason, Scenario},
    trace::Trace,
};

/// What happens in a scenario that the format allows.
pub fn play(scenario: &Scenario) -> Trace {
    let mut model = Model::of(scenario);
    let mut lines = model.boot_block();
    for action in &scenario.actions {
        lines.extend(model.block(action));
    }
    Trace { name: scenario.name.clone(), lines }
}

/// A child, by the order of their creation. A restarted supervisor has new ones.
#[derive(Clone, Copy, PartialEq, Eq)]
struct ChildId(usize);

/// A supervisor, by the order of their creation.
#[derive(Clone, Copy, PartialEq, Eq)]
struct SupervisorId(usize);

const ROOT: SupervisorId = SupervisorId(0);

struct Model<'a> {
    scenario: &'a Scenario,
    supervisors: Vec<Supervisor>,
    children: Vec<Child>,
    /// Which was started last at each place.
    latest: BTreeMap<Place, ChildId>,
    attempts: BTreeMap<Place, usize>,
    incarnations: BTreeMap<Place, u64>,
    events: Vec<String>,
    clock_ms: u64,
    held: Option<Held>,
    /// Calls whose answers are not printed yet.
    calls: Vec<Call>,
}

struct Supervisor {
    place: Place,
    options: SupervisorOptions,
    /// The id of the template of a simple_one_for_one.
    template: Option<Declaration>,
    /// In start order.
    children: Vec<ChildId>,
    /// When restarts were counted, in whole seconds.
    stamps: Vec<u64>,
    mailbox: VecDeque<Mail>,
    has_ended: bool,
}

struct Child {
    place: Place,
    options: ChildOptions,
    incarnation: u64,
    state: State,
    is_supervisor: bool,
    /// While it is up, if it is a supervisor.
    runs: Option<SupervisorId>,
}

#[derive(Clone, PartialEq, Eq)]
enum State {
    Down,
    /// A retry is due.
    Restarting,
    Up,
    /// Gone, but its supervisor does not know yet.
    Dead(Reason),
}

impl Child {
    /// As far as its supervisor knows.
    fn seems_up(&self) -> bool {
        matches!(self.state, State::Up | State::Dead(_))
    }
}

enum Mail {
    Ended(ChildId),
    Retry(ChildId),
    Stop,
    /// The number of the call, and what it asks for.
    Call(usize, Action),
}

struct Call {
    title: String,
    answer: Option<String>,
}

/// A start that is held, and what follows it.
struct Held {
    child: ChildId,
    step: StartStep,
    then: Then,
}

enum Then {
    /// The rest of the group is started.
    Group(VecDeque<ChildId>),
    /// The call that asked for the start is answered.
    Answer(usize, Action),
}

impl<'a> Model<'a> {
    fn of(scenario: &'a Scenario) -> Self {
        Self {
            scenario,
            supervisors: Vec::new(),
            children: Vec::new(),
            latest: BTreeMap::new(),
            attempts: BTreeMap::new(),
            incarnations: BTreeMap::new(),
            events: Vec::new(),
            clock_ms: 0,
            held: None,
            calls: Vec::new(),
        }
    }

    fn boot_block(&mut self) -> Vec<String> {
        let reply = match self.boot(&Place::root()) {
            Ok(_) => {
                self.event("start /#1 ok");
                "ok".to_owned()
            }
            Err(failure) => format!("error {failure}"),
        };
        self.print("start".to_owned(), vec![reply])
    }

    fn block(&mut self, action: &Action) -> Vec<String> {
        if self.supervisors[ROOT.0].has_ended {
            return vec![format!("> {action}"), "= gone".to_owned()];
        }
        let mut replies: Vec<String> = self.act(action).map(str::to_owned).into_iter().collect();
        self.settle();
        if self.supervisors[ROOT.0].has_ended {
            self.held = None;
            self.event("exit /#1 shutdown");
        }
        if self.held.is_some() {
            replies.push("held".to_owned());
        } else {
            let answer = |call: Call| format!("{}: {}", call.title, call.answer.unwrap_or_else(|| "gone".to_owned()));
            replies.extend(self.calls.drain(..).map(answer));
        }
        self.print(action.to_string(), replies)
    }

    /// Does it, and says what there is to say at once.
    fn act(&mut self, action: &Action) -> Option<&'static str> {
        match action {
            Action::Crash(places) => self.let_end(places, Reason::crash()),
            Action::Exit(place, reason) => self.let_end(std::slice::from_ref(place), reason.clone()),
            Action::Kill(place) => self.let_end(std::slice::from_ref(place), Reason::Killed),
            Action::Advance { millis } => {
                self.clock_ms += millis;
                None
            }
            Action::Release => self.release(),
            Action::Stop => {
                self.supervisors[ROOT.0].mailbox.push_back(Mail::Stop);
                None
            }
            Action::Count(place) => self.send_call(place, "count".to_owned(), action),
            Action::Terminate(place) | Action::Restart(place) | Action::Delete(place) | Action::Spawn(place) => {
                self.send_call(&place.parent(), action.to_string(), action)
            }
            Action::Add { place, .. } => self.send_call(&place.parent(), format!("add {place}"), action),
        }
    }

    /// All end before their supervisor sees the first.
    fn let_end(&mut self, places: &[Place], reason: Reason) -> Option<&'static str> {
        let is_up = |child: &ChildId| self.children[child.0].state == State::Up;
        let ending: Vec<ChildId> =
            places.iter().filter_map(|place| self.latest.get(place).copied()).filter(is_up).collect();
        let supervisor = places.first().and_then(|place| self.running(&place.parent()));
        let Some(supervisor) = supervisor.filter(|_| places.len() > 1 || !ending.is_empty()) else {
            return Some("not_running");
        };
        for child in ending {
            self.exit(child, reason.clone());
            self.supervisors[supervisor.0].mailbox.push_back(Mail::Ended(child));
        }
        None
    }

    fn send_call(&mut self, supervisor: &Place, title: String, action: &Action) -> Option<&'static str> {
        let Some(supervisor) = self.running(supervisor) else { return Some("no_supervisor") };
        let mail = Mail::Call(self.calls.len(), action.clone());
        self.calls.push(Call { title, answer: None });
        self.supervisors[supervisor.0].mailbox.push_back(mail);
        None
    }

    /// The running supervisor at a place.
    fn running(&self, place: &Place) -> Option<SupervisorId> {
        if place.is_root() {
            return Some(ROOT).filter(|root| !self.supervisors[root.0].has_ended);
        }
        let child = &self.children[self.latest.get(place)?.0];
        child.runs.filter(|_| child.state == State::Up)
    }

    /// Lets all work until no mail is left. Those below the root go first: they work also while the root is held.
    fn settle(&mut self) {
        loop {
            let lower = self.latest.values().copied().find_map(|child| {
                let supervisor = self.running(&self.children[child.0].place)?;
                (!self.supervisors[supervisor.0].mailbox.is_empty()).then_some((child, supervisor))
            });
            if let Some((child, supervisor)) = lower {
                self.work(supervisor);
                self.tell_end(child, supervisor);
            } else if self.has_work(ROOT) {
                self.work(ROOT);
            } else {
                return;
            }
        }
    }

    /// If a supervisor below the root has ended, its own supervisor hears of it.
    fn tell_end(&mut self, child: ChildId, supervisor: SupervisorId) {
        if !self.supervisors[supervisor.0].has_ended {
            return;
        }
        self.exit(child, Reason::Shutdown);
        if let Some(above) = self.running(&self.children[child.0].place.parent()) {
            self.supervisors[above.0].mailbox.push_back(Mail::Ended(child));
        }
    }

    fn exit(&mut self, child: ChildId, reason: Reason) {
        let child = &mut self.children[child.0];
        let line = format!("exit {}#{} {reason}", child.place, child.incarnation);
        child.state = State::Dead(reason);
        self.event(line);
    }

    fn report(&mut self, supervisor: SupervisorId, context: &str, child: ChildId, reason: impl std::fmt::Display) {
        let supervisor = &self.supervisors[supervisor.0];
        let template = supervisor.template.as_ref().map(|template| template.place.id());
        let id = template.unwrap_or_else(|| self.children[child.0].place.id());
        let line = format!("! {} {context} {id} {reason}", supervisor.place);
        self.event(line);
    }

    fn event(&mut self, line: impl Into<String>) {
        self.events.push(line.into());
    }

    fn print(&mut self, title: String, replies: Vec<String>) -> Vec<String> {
        let mut lines = vec![format!("> {title}")];
        lines.append(&mut self.events);
        lines.extend(replies.into_iter().map(|reply| format!("= {reply}")));
        if self.held.is_none() && !self.supervisors[ROOT.0].has_ended {
            self.print_states(ROOT, &mut lines);
        }
        lines
    }

    fn print_states(&self, supervisor: SupervisorId, lines: &mut Vec<String>) {
        let mut children: Vec<&Child> =
            self.supervisors[supervisor.0].children.iter().map(|child| &self.children[child.0]).collect();
        if self.supervisors[supervisor.0].template.is_some() {
            children.sort_by_key(|child| child.place.id().to_owned());
        }
        let mut line = format!("~ {}", self.supervisors[supervisor.0].place);
        for child in &children {
            line += &match child.state {
                State::Down => format!(" {}=down", child.place.id()),
                State::Restarting => format!(" {}=restarting", child.place.id()),
                State::Up | State::Dead(_) => format!(" {}=up#{}", child.place.id(), child.incarnation),
            };
        }
        lines.push(line);
        for below in children.iter().filter(|child| child.seems_up()).filter_map(|child| child.runs) {
            self.print_states(below, lines);
        }
    }
}
