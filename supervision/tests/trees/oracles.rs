//! What must be true of every tree, whatever is done to it.

use std::{collections::BTreeMap, time::Duration};

use supervision::{
    Address, BeatState, CallError, NodeSnapshot, OnStuck, Restart, SendError, Status, StopOutcome, StopReport,
    Strategy, Tree,
};

use super::{
    case::{Act, Case, Operation, Order, Pace},
    drive::Play,
    worker::Message,
    world::{Stay, Wire, World},
};

/// Failures that a node remembers at most.
const HISTORY_MAX: usize = 16;

/// Lives that have not ended, when all should have.
pub fn all_ended(world: &World) -> Vec<String> {
    let left = world.stays().into_iter().filter(|(_, stays)| stays.iter().any(|stay| stay.ended.is_none()));
    left.map(|(path, stays)| format!("{path} lives on: {:?}", stays.last())).collect()
}

/// What is not yet as it must be when nothing happens any more.
pub fn unrest(play: &Play<'_>, tree: &Tree) -> Vec<String> {
    let root = tree.snapshot();
    let mut faults = Vec::new();
    for node in root.walk() {
        if node.history.len() > HISTORY_MAX {
            faults.push(format!("{}: a history of {}", node.path, node.history.len()));
        }
        for child in &node.children {
            faults.extend(wrong_status(play.case, node, child).map(|fault| format!("{}: {fault}", child.path)));
            faults.extend(wrong_life(play, child));
        }
    }
    let known = |path: &str| root.find(path.trim_end_matches("!helper")).is_some();
    let orphans = play.world.stays().into_iter().filter(|(path, _)| !known(path) && play.world.alive(path) > 0);
    faults.extend(orphans.map(|(path, _)| format!("{path} lives, and the tree does not know it")));
    faults
}

fn wrong_status(case: &Case, parent: &NodeSnapshot, child: &NodeSnapshot) -> Option<String> {
    let status = child.status;
    if parent.status != Status::Up {
        let is_down = !matches!(status, Status::Up | Status::Starting | Status::Stopping);
        return (!is_down).then(|| format!("{status:?} below what is {:?}", parent.status));
    }
    let node = case.at(child.path.as_str())?;
    let is_right = match status {
        Status::Up => child.stuck.is_none(),
        Status::Finished => node.restart != Restart::Permanent,
        Status::StoppedByHand => true,
        Status::Down => may_be_down(case, node.number),
        _ => false,
    };
    (!is_right).then(|| format!("{status:?} though nothing happens; stuck: {:?}", child.stuck))
}

/// A permanent child comes back, unless somebody meddled with it, or with one whose fate it shares.
fn may_be_down(case: &Case, number: usize) -> bool {
    let Some(node) = case.node(number) else { return true };
    let strategy = case.rules(node.parent).map(|rules| rules.strategy);
    let is_single = matches!(strategy, Some(Strategy::OneForOne | Strategy::Dynamic { .. }));
    let concerns = |other: usize| {
        other == number || !is_single && case.node(other).is_some_and(|other| other.parent == node.parent)
    };
    let by_hand = case.deeds.iter().any(|deed| match deed.act {
        Act::Operate(other, Operation::Stop | Operation::Start | Operation::Restart) => concerns(other),
        Act::Add(other) => concerns(other),
        _ => false,
    });
    node.restart != Restart::Permanent || by_hand
}

/// A worker lives exactly if the tree says so, and so does what it has spawned.
fn wrong_life(play: &Play<'_>, child: &NodeSnapshot) -> Vec<String> {
    let Some(conduct) = play.case.at(child.path.as_str()).and_then(|node| node.conduct()) else { return Vec::new() };
    let expected = usize::from(child.status == Status::Up);
    let helper = (format!("{}!helper", child.path), expected * usize::from(conduct.has_helper));
    let lives = [(child.path.to_string(), expected), helper].into_iter();
    let wrong = lives.filter(|(path, expected)| play.world.alive(path) != *expected);
    wrong.map(|(path, _)| format!("{path}: {:?}, and {} alive", child.status, play.world.alive(&path))).collect()
}

/// Actors that are up and do not answer.
pub async fn deaf(play: &Play<'_>, tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    for node in tree.snapshot().walk().into_iter().filter(|node| node.status == Status::Up) {
        let number = play.case.at(node.path.as_str()).map_or(0, |node| node.number);
        if let Some(Wire::Actor(address)) = play.world.wire(number)
            && let Err(error) = answer(&address).await
        {
            faults.push(format!("{}: up, and {error}", node.path));
        }
    }
    faults
}

/// What it was told before it is called may still end it; then it is called again.
async fn answer(address: &Address<Message>) -> Result<(), CallError> {
    let mut answer = Err(CallError::Lost);
    for _ in 0..100 {
        answer = address.call(Message::Ping, Duration::from_secs(20)).await;
        if !matches!(answer, Err(CallError::Lost | CallError::Restarting { .. })) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    answer
}

/// Workers whose turn to stop came before one that started after them had ended. What started last stops first, unless
/// the two stop together.
///
/// In the middle of things only siblings are compared: a supervisor may end, and its children with it, before its turn.
pub fn wrong_turns(play: &Play<'_>, before: &NodeSnapshot, stop_began: u64) -> Vec<String> {
    let case = play.case;
    let last: BTreeMap<usize, Stay> = (play.world.stays().into_iter())
        .filter(|(path, _)| !path.ends_with("!helper"))
        .filter_map(|(path, stays)| Some((case.at(&path)?.number, *stays.last()?)))
        .filter(|(_, stay)| stay.ended.is_none_or(|ended| ended > stop_began))
        .collect();
    let nodes = before.walk().into_iter().filter_map(|node| Some(case.at(node.path.as_str())?.number));
    let places: BTreeMap<usize, usize> = nodes.enumerate().map(|(place, number)| (number, place)).collect();
    let mut faults = Vec::new();
    for (earlier, stay) in &last {
        let Some(turn) = stay.turn.filter(|turn| *turn > stop_began) else { continue };
        if !case.ends_calmly && has_its_own_turn(case, *earlier) {
            continue;
        }
        let later = last.iter().filter(|(later, _)| stops_before(case, &places, **later, *earlier));
        let late = later.filter(|(_, stay)| stay.began < turn && stay.ended.is_none_or(|ended| ended > turn));
        faults.extend(late.map(|(later, _)| {
            format!("{} had not ended when the turn of {} came", case.path(*later), case.path(*earlier))
        }));
    }
    faults
}

/// It may be stopped for a reason of its own: because it is stuck, or too slow to start.
fn has_its_own_turn(case: &Case, number: usize) -> bool {
    let Some(node) = case.node(number) else { return true };
    let is_stopped_when_stuck = node.conduct().is_some_and(|conduct| conduct.on_stuck == OnStuck::Restart);
    is_stopped_when_stuck || node.start_budget.is_some_and(|budget| budget < Duration::from_secs(1))
}

fn stops_before(case: &Case, places: &BTreeMap<usize, usize>, later: usize, earlier: usize) -> bool {
    let (mut a, mut b) = (case.lineage(earlier), case.lineage(later));
    while a.last() == b.last() && !a.is_empty() {
        a.pop();
        b.pop();
    }
    let ([above @ .., x], [below @ .., y]) = (a.as_slice(), b.as_slice()) else { return false };
    let are_siblings = above.is_empty() && below.is_empty();
    let (Some(x), Some(y)) = (case.node(*x), case.node(*y)) else { return false };
    let is_dynamic = case.rules(x.parent).is_some_and(|rules| matches!(rules.strategy, Strategy::Dynamic { .. }));
    let together = is_dynamic || x.stop_group.is_some() && x.stop_group == y.stop_group;
    let (Some(place_of_x), Some(place_of_y)) = (places.get(&x.number), places.get(&y.number)) else { return false };
    place_of_y > place_of_x && !together && (case.ends_calmly || are_siblings)
}

/// Where the report of a stop departs from the reverse of the start order, depth first.
pub fn wrong_report(case: &Case, before: &NodeSnapshot, report: &StopReport) -> Option<String> {
    let lines: Vec<&str> = report.children.iter().map(|child| child.path.as_str()).collect();
    match consume(case, before, &lines) {
        Ok([]) => None,
        Ok(left) => Some(format!("the report has what did not run: {left:?}")),
        Err(fault) => Some(format!("{fault}, in a report of {lines:?}")),
    }
}

/// Takes the lines of all below a node off the report; answers with the rest.
fn consume<'a, 'b>(case: &Case, node: &NodeSnapshot, lines: &'a [&'b str]) -> Result<&'a [&'b str], String> {
    let mut lines = lines;
    for mut step in steps(case, node) {
        // With a real clock one that finishes by itself may do so just before it is asked to stop, and leaves no trace.
        let may_be_gone = |child: &NodeSnapshot| {
            case.pace == Pace::Real
                && case.at(child.path.as_str()).is_some_and(|node| node.restart == Restart::Temporary)
        };
        step.retain(|child| !may_be_gone(child) || lines.contains(&child.path.as_str()));
        while !step.is_empty() {
            let Some(next) = lines.first() else { return Err(format!("{} is missing", step[0].path)) };
            let is_below = |child: &&NodeSnapshot| {
                next.strip_prefix(child.path.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            };
            let Some(index) = step.iter().position(is_below) else {
                return Err(format!("{next} stands in the place of {}", step[0].path));
            };
            let child = step.remove(index);
            lines = consume(case, child, lines)?;
            match lines.split_first() {
                Some((line, rest)) if *line == child.path.as_str() => lines = rest,
                _ => return Err(format!("{} does not follow its children", child.path)),
            }
        }
    }
    Ok(lines)
}

/// The children that run, last first; those that stop together in one step.
fn steps<'a>(case: &Case, node: &'a NodeSnapshot) -> Vec<Vec<&'a NodeSnapshot>> {
    let number = case.at(node.path.as_str()).map_or(0, |node| node.number);
    let is_dynamic = case.rules(number).is_some_and(|rules| matches!(rules.strategy, Strategy::Dynamic { .. }));
    let mut steps: Vec<(Option<&str>, Vec<&NodeSnapshot>)> = Vec::new();
    for child in node.children.iter().rev() {
        let group =
            if is_dynamic { Some("all") } else { case.at(child.path.as_str()).and_then(|node| node.stop_group) };
        match steps.last_mut() {
            Some((before, members)) if group.is_some() && *before == group => members.push(child),
            _ => steps.push((group, vec![child])),
        }
    }
    let running = |step: Vec<&'a NodeSnapshot>| step.into_iter().filter(|child| child.status == Status::Up).collect();
    steps.into_iter().map(|(_, members)| running(members)).collect()
}

/// Nobody here is deaf to a kill, so nobody leaks; and nobody is reported twice.
pub fn leaks(report: &StopReport) -> Vec<String> {
    let mut seen = std::collections::BTreeSet::new();
    let twice = report.children.iter().filter(|child| !seen.insert(child.path.as_str()));
    let twice: Vec<String> = twice.map(|child| format!("{} is reported twice", child.path)).collect();
    let leaked = report.children.iter().filter(|child| child.outcome == StopOutcome::Leaked);
    leaked.map(|child| format!("{} leaked", child.path)).chain(twice).collect()
}

/// After the stop nothing starts, stops, waits, beats or takes messages.
pub fn still_there(play: &Play<'_>, tree: &Tree) -> Vec<String> {
    let root = tree.snapshot();
    let moves = |status| matches!(status, Status::Up | Status::Starting | Status::Stopping | Status::Waiting { .. });
    let moving = root.walk().into_iter().filter(|node| moves(node.status));
    let mut faults: Vec<String> = moving.map(|node| format!("{}: {:?}, stopped", node.path, node.status)).collect();
    for beat in tree.heartbeats().snapshot() {
        let is_right =
            beat.state == BeatState::Waiting && beat.busy.is_none() && root.find(beat.path.as_str()).is_some();
        if !is_right {
            faults.push(format!("a heartbeat is left: {beat:?}"));
        }
    }
    for node in &play.case.nodes {
        if let Some(Wire::Actor(address)) = play.world.wire(node.number)
            && !matches!(address.try_send(Message::Do(Order::Finish)), Err(SendError::Down { .. }))
        {
            faults.push(format!("{} is not down after the stop", play.case.path(node.number)));
        }
    }
    faults
}
