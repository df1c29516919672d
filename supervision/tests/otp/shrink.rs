//! Makes a failing scenario small: what is left is needed for the failure.

use super::{
    check,
    options::{ChildOptions, StartPlan, SupervisorOptions},
    scenario::{Action, Declaration, Declared, Scenario},
};

/// The scenario without all that can be left out, one thing at a time, so that it still fails and the format still allows
/// it. The scenario itself must fail.
pub fn shrink(scenario: &Scenario, fails: impl Fn(&Scenario) -> bool) -> Scenario {
    let mut smallest = scenario.clone();
    loop {
        let next = smaller(&smallest).find(|smaller| check::check(smaller).is_ok() && fails(smaller));
        match next {
            Some(smaller) => smallest = smaller,
            None => return smallest,
        }
    }
}

/// Each of these has less in it, so that shrinking comes to an end: large pieces are tried first.
fn smaller(scenario: &Scenario) -> impl Iterator<Item = Scenario> {
    let without_actions = without_chunks(&scenario.actions).map(|actions| Scenario { actions, ..scenario.clone() });
    let without_child = scenario.declarations.iter().map(|declaration| without(scenario, declaration));
    let shorter_crashes = shorter_crashes(scenario);
    without_actions
        .chain(without_child)
        .chain(plainer_declarations(scenario))
        .chain(plainer_additions(scenario))
        .chain(shorter_crashes)
}

/// The list without a half of it, a quarter of it, and so on down to one.
fn without_chunks<T: Clone>(list: &[T]) -> impl Iterator<Item = Vec<T>> {
    let sizes = std::iter::successors(Some(list.len()), |size| Some(size / 2)).take_while(|size| *size > 0);
    sizes.flat_map(move |size| {
        (0..list.len()).step_by(size).map(move |start| {
            let end = (start + size).min(list.len());
            [&list[..start], &list[end..]].concat()
        })
    })
}

/// Without a child, all below it, and all that is done to them.
fn without(scenario: &Scenario, gone: &Declaration) -> Scenario {
    let mut left = scenario.clone();
    left.declarations.retain(|declaration| !declaration.place.is_within(&gone.place));
    left.actions.retain(|action| !action.places().iter().any(|place| place.is_within(&gone.place)));
    left
}

fn plainer_declarations(scenario: &Scenario) -> impl Iterator<Item = Scenario> {
    scenario.declarations.iter().enumerate().flat_map(move |(index, declaration)| {
        let plainer: Vec<Declared> = match &declaration.declared {
            Declared::Child(options) => plainer_child(options).map(Declared::Child).collect(),
            Declared::Supervisor(options) => plainer_supervisor(options).map(Declared::Supervisor).collect(),
        };
        plainer.into_iter().map(move |declared| {
            let mut changed = scenario.clone();
            changed.declarations[index].declared = declared;
            changed
        })
    })
}

fn plainer_additions(scenario: &Scenario) -> impl Iterator<Item = Scenario> {
    scenario.actions.iter().enumerate().flat_map(move |(index, action)| {
        let plainer: Vec<Action> = match action {
            Action::Add { place, options, .. } => {
                plainer_child(options).map(|options| Action::add(place.clone(), options)).collect()
            }
            _ => Vec::new(),
        };
        plainer.into_iter().map(move |action| with_action(scenario, index, action))
    })
}

fn shorter_crashes(scenario: &Scenario) -> impl Iterator<Item = Scenario> {
    scenario.actions.iter().enumerate().flat_map(move |(index, action)| {
        let shorter: Vec<Action> = match action {
            Action::Crash(places) if places.len() > 1 => {
                without_chunks(places).filter(|left| !left.is_empty()).map(Action::Crash).collect()
            }
            _ => Vec::new(),
        };
        shorter.into_iter().map(move |action| with_action(scenario, index, action))
    })
}

fn with_action(scenario: &Scenario, index: usize, action: Action) -> Scenario {
    let mut changed = scenario.clone();
    changed.actions[index] = action;
    changed
}

/// The options with one of them as it is by default.
fn plainer_child(options: &ChildOptions) -> impl Iterator<Item = ChildOptions> {
    let ChildOptions { restart, shutdown, significant, start: _, stop } = ChildOptions::default();
    let plainer = [
        ChildOptions { restart, ..options.clone() },
        ChildOptions { shutdown, ..options.clone() },
        ChildOptions { significant, ..options.clone() },
        ChildOptions { stop, ..options.clone() },
    ];
    let shorter = shorter_plans(&options.start).map(|start| ChildOptions { start, ..options.clone() });
    plainer.into_iter().filter(move |plainer| plainer != options).chain(shorter)
}

/// The options with one of them as it is by default.
fn plainer_supervisor(options: &SupervisorOptions) -> impl Iterator<Item = SupervisorOptions> {
    let SupervisorOptions { strategy, intensity, period_secs, auto_shutdown, restart, significant, start: _ } =
        SupervisorOptions::default();
    let plainer = [
        SupervisorOptions { strategy, ..options.clone() },
        SupervisorOptions { intensity, ..options.clone() },
        SupervisorOptions { period_secs, ..options.clone() },
        SupervisorOptions { auto_shutdown, ..options.clone() },
        SupervisorOptions { restart, ..options.clone() },
        SupervisorOptions { significant, ..options.clone() },
    ];
    let shorter = shorter_plans(&options.start).map(|start| SupervisorOptions { start, ..options.clone() });
    plainer.into_iter().filter(move |plainer| plainer != options).chain(shorter)
}

fn shorter_plans(plan: &StartPlan) -> impl Iterator<Item = StartPlan> {
    let once = plan.repeats.then(|| StartPlan { repeats: false, ..plan.clone() });
    let shorter =
        without_chunks(&plan.steps).map(|steps| StartPlan { repeats: plan.repeats && !steps.is_empty(), steps });
    once.into_iter().chain(shorter)
}
