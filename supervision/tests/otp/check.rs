//! Which scenarios have one outcome only. What depends on a race in OTP itself is not allowed.

use std::collections::BTreeSet;

use super::{
    options::{ChildOptions, Shutdown, StopManner, Strategy},
    scenario::{Action, Declaration, Place, Scenario},
};

/// Why the format does not allow a scenario.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("there is no `sup /`")]
    NoRoot,
    #[error("the root is nobody's child: it takes no restart, significant or start")]
    RootAsChild,
    #[error("{0} is declared twice")]
    DeclaredTwice(Place),
    #[error("{0} is declared below what is no supervisor")]
    Orphan(Place),
    #[error("{0}: a simple_one_for_one supervisor is the root, and has exactly one child, a worker")]
    BadTemplate(Place),
    #[error("{0}: a period is at least 1 s")]
    NoPeriod(Place),
    #[error("{0}: only starts of the root's children are held, and never the first")]
    BadHold(Place),
    #[error("{0}: what hangs needs a time after which it is killed")]
    HangsForever(Place),
    #[error("{0} is a supervisor: only workers crash, exit, are killed, added or spawned")]
    NotAWorker(Place),
    #[error("what crashes at once are different workers of one supervisor")]
    BadCrash,
    #[error("a child cannot be spawned at {0}, or not added")]
    BadAddition(Place),
    #[error("a gap of {gap_ms} ms may lie inside or outside of a period of {period_secs} s")]
    UnclearGap { gap_ms: u64, period_secs: u64 },
}

/// Whether the format allows the scenario.
///
/// # Errors
/// The first thing that it does not allow.
pub fn check(scenario: &Scenario) -> Result<(), Fault> {
    let root = scenario.supervisor(&Place::root()).ok_or(Fault::NoRoot)?;
    if root.restart != Default::default() || root.significant || !root.start.steps.is_empty() {
        return Err(Fault::RootAsChild);
    }
    scenario.declarations.iter().enumerate().try_for_each(|(index, declaration)| {
        let earlier = scenario.declarations.iter().take(index);
        check_declaration(scenario, declaration, earlier.map(|earlier| &earlier.place))
    })?;
    scenario.actions.iter().try_for_each(|action| check_action(scenario, action))?;
    check_gaps(scenario)
}

fn check_declaration<'a>(
    scenario: &Scenario,
    declaration: &Declaration,
    mut earlier: impl Iterator<Item = &'a Place>,
) -> Result<(), Fault> {
    let place = &declaration.place;
    if earlier.any(|earlier| earlier == place) {
        return Err(Fault::DeclaredTwice(place.clone()));
    }
    if scenario.supervisor(&place.parent()).is_none() {
        return Err(Fault::Orphan(place.clone()));
    }
    if let Some(options) = declaration.supervisor() {
        if options.period_secs == 0 {
            return Err(Fault::NoPeriod(place.clone()));
        }
        let mut children = scenario.children_of(place);
        let template = children.next().filter(|child| child.supervisor().is_none());
        let is_sound = place.is_root() && template.is_some() && children.next().is_none();
        if options.strategy == Strategy::SimpleOneForOne && !is_sound {
            return Err(Fault::BadTemplate(place.clone()));
        }
    } else if place.is_root() {
        return Err(Fault::NoRoot);
    }
    check_child(place, &declaration.as_child())
}

fn check_child(place: &Place, options: &ChildOptions) -> Result<(), Fault> {
    let steps = &options.start.steps;
    let first_is_held = steps.first().is_some_and(|step| step.is_held());
    if first_is_held || (!place.parent().is_root() && steps.iter().any(|step| step.is_held())) {
        return Err(Fault::BadHold(place.clone()));
    }
    if options.stop == StopManner::Hang && options.shutdown == Shutdown::Infinity {
        return Err(Fault::HangsForever(place.clone()));
    }
    Ok(())
}

fn check_action(scenario: &Scenario, action: &Action) -> Result<(), Fault> {
    let names_worker = |place: &Place| !place.is_root() && scenario.supervisor(place).is_none();
    let needs_worker = !matches!(action, Action::Terminate(_) | Action::Restart(_) | Action::Delete(_));
    let stands_alone = |place: &Place| matches!(action, Action::Count(_)) || !place.is_root();
    for place in action.places() {
        let is_worker = matches!(action, Action::Count(_)) || !needs_worker || names_worker(place);
        if !is_worker || !stands_alone(place) {
            return Err(Fault::NotAWorker(place.clone()));
        }
    }
    let is_simple = scenario.supervisor(&Place::root()).is_some_and(|it| it.strategy == Strategy::SimpleOneForOne);
    match action {
        Action::Crash(places) => {
            let parents: BTreeSet<_> = places.iter().map(Place::parent).collect();
            let different: BTreeSet<_> = places.iter().collect();
            if parents.len() == 1 && different.len() == places.len() { Ok(()) } else { Err(Fault::BadCrash) }
        }
        Action::Add { place, .. } if is_simple => Err(Fault::BadAddition(place.clone())),
        Action::Add { place, options, .. } => check_child(place, options),
        Action::Spawn(place) if !is_simple || !place.parent().is_root() => Err(Fault::BadAddition(place.clone())),
        _ => Ok(()),
    }
}

/// OTP counts restarts in whole seconds: what is closer than the period is inside its window, what is at least a second
/// farther is outside, and in between it depends.
fn check_gaps(scenario: &Scenario) -> Result<(), Fault> {
    let mut times = vec![0_u64];
    for action in &scenario.actions {
        if let Action::Advance { millis } = action {
            times.push(times.last().map_or(0, |now| now.saturating_add(*millis)));
        }
    }
    let periods: BTreeSet<u64> =
        scenario.declarations.iter().filter_map(|it| Some(it.supervisor()?.period_secs)).collect();
    for (index, later) in times.iter().enumerate() {
        for gap_ms in times.iter().take(index).map(|earlier| later - earlier) {
            let unclear = |secs: &&u64| gap_ms / 1000 == **secs;
            if let Some(period_secs) = periods.iter().find(unclear) {
                return Err(Fault::UnclearGap { gap_ms, period_secs: *period_secs });
            }
        }
    }
    Ok(())
}
