//! Plays a scenario on our supervisor, as OTP would: without backoff, with time that only the scenario moves, and with
//! every deliberate difference set to OTP's way.

mod calls;
mod stage;
mod tree;
mod witness;

use std::time::Duration;

use futures_util::FutureExt;
use supervision::{Event, Heartbeats, Kind, NodeSnapshot, StartError, Status, Tree};

use self::{
    calls::{Callee, Calls},
    stage::Stage,
    witness::Witness,
};
use super::{
    options::Strategy,
    scenario::{Action, Place, Reason, Scenario},
    trace::Trace,
};

/// Turns of the runtime in which nothing happens, before all is taken to be at rest.
const QUIET_TURNS: usize = 64;

/// Turns after which it is clear that it never comes to rest.
const TURNS_MAX: usize = 1_000_000;

/// How much time is let pass for what takes time: no stop of a scenario takes so long.
const WAIT_MAX_MS: usize = 60_000;

/// Why a scenario could not be played to its end.
#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    #[error("{scenario}: no runtime: {source}")]
    Runtime { scenario: String, source: std::io::Error },
    #[error("{scenario}: the start of {place}, a supervisor, cannot be planned")]
    PlannedSupervisor { scenario: String, place: Place },
    #[error("{scenario}: {title}: never at rest")]
    Restless { scenario: String, title: String },
}

/// What our supervisor does in a scenario.
///
/// # Errors
/// The scenario has what we cannot play, or the tree never comes to rest.
pub fn play(scenario: &Scenario) -> Result<Trace, PlayError> {
    let planned = |it: &&super::scenario::Declaration| it.supervisor().is_some_and(|it| !it.start.steps.is_empty());
    if let Some(supervisor) = scenario.declarations.iter().find(planned) {
        let (scenario, place) = (scenario.name.clone(), supervisor.place.clone());
        return Err(PlayError::PlannedSupervisor { scenario, place });
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.map_err(|source| PlayError::Runtime { scenario: scenario.name.clone(), source })?;
    let lines = runtime.block_on(play_blocks(scenario))?;
    Ok(Trace { name: scenario.name.clone(), lines })
}

async fn play_blocks(scenario: &Scenario) -> Result<Vec<String>, PlayError> {
    let (mut player, mut lines) = Player::boot(scenario).await?;
    for action in &scenario.actions {
        lines.extend(player.block(action).await?);
    }
    player.close().await;
    Ok(lines)
}

struct Player<'a> {
    scenario: &'a Scenario,
    stage: Stage,
    witness: Witness,
    /// None when the root has ended.
    tree: Option<Tree>,
    calls: Calls,
}

impl<'a> Player<'a> {
    async fn boot(scenario: &'a Scenario) -> Result<(Self, Vec<String>), PlayError> {
        let stage = Stage::default();
        let witness = Witness::new(stage.clone(), scenario);
        let spec = tree::root(&stage, scenario);
        let observer = witness.clone();
        let options = Tree::options().heartbeats(Heartbeats::new()).observer(move |event: &Event| observer.see(event));
        let started = options.start(spec).await;
        let (tree, reply) = match started {
            Ok(tree) => {
                witness.root_started();
                (Some(tree), "ok".to_owned())
            }
            Err(error) => (None, format!("error {}", not_started(&error))),
        };
        let mut player = Self { scenario, stage, witness, tree, calls: Calls::default() };
        player.settle("start").await?;
        let lines = player.print("start", vec![reply]);
        Ok((player, lines))
    }

    async fn block(&mut self, action: &Action) -> Result<Vec<String>, PlayError> {
        let title = action.to_string();
        let Some(tree) = self.tree.clone() else { return Ok(vec![format!("> {title}"), "= gone".to_owned()]) };
        let mut replies: Vec<String> = self.act(&tree, action).await.map(str::to_owned).into_iter().collect();
        self.settle(&title).await?;
        if self.stage.is_held() && self.tree.is_some() {
            replies.push("held".to_owned());
        } else {
            replies.extend(self.calls.take_replies());
        }
        Ok(self.print(&title, replies))
    }

    /// Does it, and says what there is to say at once.
    async fn act(&mut self, tree: &Tree, action: &Action) -> Option<&'static str> {
        match action {
            Action::Crash(places) => self.let_end(places, &Reason::crash()),
            Action::Exit(place, reason) => self.let_end(std::slice::from_ref(place), reason),
            Action::Kill(place) if !self.stage.is_up(place) => Some("not_running"),
            Action::Kill(place) => {
                self.calls.kill(tree, place);
                None
            }
            Action::Advance { millis } => {
                tokio::time::advance(Duration::from_millis(*millis)).await;
                None
            }
            Action::Release if !self.stage.is_held() => Some("not_held"),
            Action::Release => {
                self.stage.release();
                None
            }
            Action::Stop => {
                self.calls.stop(tree);
                None
            }
            Action::Count(place) if self.is_serving(place) => self.send(tree, action),
            Action::Terminate(place)
            | Action::Restart(place)
            | Action::Delete(place)
            | Action::Spawn(place)
            | Action::Add { place, .. }
                if self.is_serving(&place.parent()) =>
            {
                self.send(tree, action)
            }
            _ => Some("no_supervisor"),
        }
    }

    fn send(&mut self, tree: &Tree, action: &Action) -> Option<&'static str> {
        let callee = Callee { scenario: self.scenario, stage: &self.stage, witness: &self.witness, tree };
        self.calls.send(&callee, action);
        None
    }

    /// All that run are told before the first can end, so that their supervisor sees no end before all are gone.
    fn let_end(&self, places: &[Place], reason: &Reason) -> Option<&'static str> {
        let up: Vec<&Place> = places.iter().filter(|place| self.stage.is_up(place)).collect();
        let is_serving = places.first().is_some_and(|place| self.is_serving(&place.parent()));
        if !is_serving || (places.len() == 1 && up.is_empty()) {
            return Some("not_running");
        }
        up.into_iter().for_each(|place| self.stage.order(place, reason.clone()));
        None
    }

    fn is_serving(&self, place: &Place) -> bool {
        if place.is_root() {
            self.tree.is_some()
        } else {
            self.stage.is_up(place) && self.scenario.supervisor(place).is_some()
        }
    }

    fn is_dynamic(&self) -> bool {
        let root = self.scenario.supervisor(&Place::root());
        root.is_some_and(|root| root.strategy == Strategy::SimpleOneForOne)
    }

    /// Lets all go on until nothing happens any more. What takes time is given time, in small steps.
    async fn settle(&mut self, title: &str) -> Result<(), PlayError> {
        let mut turns = 0;
        for _ in 0..WAIT_MAX_MS {
            turns += self.let_turns_pass(TURNS_MAX.saturating_sub(turns)).await;
            if turns >= TURNS_MAX {
                break;
            }
            if self.is_at_rest() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Err(PlayError::Restless { scenario: self.scenario.name.clone(), title: title.to_owned() })
    }

    /// Until nothing happens, but at most so many; returns how many it were, the quiet ones not counted.
    async fn let_turns_pass(&mut self, turns_max: usize) -> usize {
        let (mut turns, mut quiet, mut length) = (0, 0, self.stage.log_length());
        while quiet < QUIET_TURNS && turns < turns_max {
            if let Some(tree) = &self.tree {
                let callee = Callee { scenario: self.scenario, stage: &self.stage, witness: &self.witness, tree };
                self.calls.poll(&callee);
            }
            tokio::task::yield_now().await;
            let grown = self.stage.log_length();
            (quiet, turns) = if grown == length { (quiet + 1, turns) } else { (0, turns + quiet + 1) };
            length = grown;
        }
        turns
    }

    /// While a start is held the root waits for it; all else comes to rest.
    fn is_at_rest(&self) -> bool {
        let Some(tree) = &self.tree else { return true };
        if tree.ended().now_or_never().is_some() {
            return true;
        }
        let (root, is_held) = (tree.snapshot(), self.stage.is_held());
        let is_busy =
            |node: &&NodeSnapshot| matches!(node.status, Status::Starting | Status::Stopping | Status::Waiting { .. });
        let below = |node: &NodeSnapshot| node.children.iter().flat_map(NodeSnapshot::walk).filter(is_busy).count();
        let busy = match is_held {
            true => root.children.iter().map(below).sum::<usize>(),
            false => below(&root),
        };
        busy == 0 && (is_held || self.calls.are_answered())
    }

    fn print(&mut self, title: &str, replies: Vec<String>) -> Vec<String> {
        let mut log = self.stage.take_log();
        if self.tree.as_ref().is_some_and(|tree| tree.ended().now_or_never().is_some()) {
            self.tree = None;
            self.witness.root_ended(&mut log);
        }
        let mut lines = vec![format!("> {title}")];
        lines.append(&mut log);
        lines.extend(replies.into_iter().map(|reply| format!("= {reply}")));
        if let Some(tree) = self.tree.as_ref().filter(|_| !self.stage.is_held()) {
            self.print_states(&tree.snapshot(), &mut lines);
        }
        lines
    }

    fn print_states(&self, supervisor: &NodeSnapshot, lines: &mut Vec<String>) {
        let mut children: Vec<&NodeSnapshot> = supervisor.children.iter().collect();
        if self.is_dynamic() {
            children.sort_by_key(|child| &child.id);
        }
        let states = children.iter().map(|child| {
            let place = Place::parse(child.path.as_str()).unwrap_or_else(Place::root);
            let state = match child.status {
                Status::Up => format!("up#{}", self.stage.incarnation(&place)),
                Status::Waiting { .. } => "restarting".to_owned(),
                _ => "down".to_owned(),
            };
            format!(" {}={state}", child.id)
        });
        lines.push(format!("~ {}{}", supervisor.path, states.collect::<String>()));
        let is_serving = |child: &&&NodeSnapshot| child.kind == Kind::Supervisor && child.status == Status::Up;
        children.iter().filter(is_serving).for_each(|child| self.print_states(child, lines));
    }

    /// Leaves nothing behind in the runtime.
    async fn close(self) {
        let Some(tree) = self.tree else { return };
        let mut stop = std::pin::pin!(tree.stop());
        // A start may be held after the one that is held now.
        while (&mut stop).now_or_never().is_none() {
            self.stage.release();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

fn not_started(error: &StartError) -> String {
    match error {
        StartError::Unsound(_) => "bad_spec:bad_combination".to_owned(),
        StartError::Child { path, cause } => {
            let way: String = path.as_str().split('.').map(|id| format!("failed_to_start:{id}:")).collect();
            let place = Place::parse(path.as_str()).unwrap_or_else(Place::root);
            format!("{way}{}", witness::start_failure(&place, cause))
        }
        other => other.to_string(),
    }
}
