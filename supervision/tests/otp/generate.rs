//! Scenarios at random. The same seed and features give the same scenario.

use fastrand::Rng;

use super::{
    check,
    options::{
        AutoShutdown, ChildOptions, Restart, Shutdown, StartPlan, StartStep, StopManner, Strategy, SupervisorOptions,
    },
    scenario::{Action, Declaration, Declared, Place, Reason, Scenario},
};

/// What scenarios may have beside one supervisor and its children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// A supervisor below the root.
    Nested,
    /// The root is a simple_one_for_one.
    Simple,
    /// Starts that are held.
    Hold,
    /// Several crashes at once.
    Simul,
    /// Restarts that fall out of the window.
    Time,
    /// Significant children.
    Auto,
}

impl Feature {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Nested, Self::Simple, Self::Hold, Self::Simul, Self::Time, Self::Auto];
}

/// With a period of 3 s, one step is inside of the window, and two are outside.
const STEP_MS: u64 = 2100;
const SHORT_PERIOD_SECS: u64 = 3;
const LONG_PERIOD_SECS: u64 = 3600;

/// A scenario that the format allows, with some of the features.
pub fn generate(seed: u64, features: &[Feature]) -> Scenario {
    let mut dice = Dice { rng: Rng::with_seed(seed), features };
    let name = format!("seed_{seed}");
    let scenario = if dice.has(Feature::Simple, 0.08) { dice.simple(name) } else { dice.tree(name) };
    debug_assert_eq!(check::check(&scenario), Ok(()), "{scenario}");
    scenario
}

struct Dice<'a> {
    rng: Rng,
    features: &'a [Feature],
}

impl Dice<'_> {
    fn chance(&mut self, probability: f64) -> bool {
        self.rng.f64() < probability
    }

    fn has(&mut self, feature: Feature, probability: f64) -> bool {
        self.features.contains(&feature) && self.chance(probability)
    }

    fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.rng.usize(..choices.len())].clone()
    }

    fn simple(&mut self, name: String) -> Scenario {
        // Since OTP 27 a dynamic supervisor has no auto-shutdown.
        let auto_shutdown = AutoShutdown::Never;
        let root = SupervisorOptions { strategy: Strategy::SimpleOneForOne, auto_shutdown, ..self.supervisor() };
        let template = self.child(&SupervisorOptions::default(), &place("t"));
        let declarations = vec![
            Declaration { place: Place::root(), declared: Declared::Supervisor(root) },
            Declaration { place: place("t"), declared: Declared::Child(template) },
        ];
        let mut scenario = Scenario { name, declarations, actions: Vec::new() };
        let names: Vec<Place> = (1..=4).map(|number| place(&format!("w{number}"))).collect();
        let mut unborn = names.clone();
        unborn.reverse();
        for turn in 0..self.rng.usize(4..12) {
            let is_birth = turn == 0 || self.chance(0.3);
            let action = match unborn.pop().filter(|_| is_birth) {
                Some(name) => Action::Spawn(name),
                None => self.action(&names, &names),
            };
            self.append(&mut scenario, action);
        }
        scenario.actions.push(Action::Stop);
        scenario
    }

    fn tree(&mut self, name: String) -> Scenario {
        let root = self.supervisor();
        let mut declarations = vec![Declaration { place: Place::root(), declared: Declared::Supervisor(root.clone()) }];
        let nested_at = self.has(Feature::Nested, 0.25).then(|| self.rng.usize(..3));
        for (index, id) in ["a", "b", "c", "d", "e"].iter().take(self.rng.usize(1..=5)).enumerate() {
            if nested_at == Some(index) {
                self.nested(&root, &mut declarations);
            }
            let declared = Declared::Child(self.child(&root, &place(id)));
            declarations.push(Declaration { place: place(id), declared });
        }
        let mut scenario = Scenario { name, declarations, actions: Vec::new() };
        let mut workers: Vec<Place> =
            scenario.declarations.iter().filter(|it| it.supervisor().is_none()).map(|it| it.place.clone()).collect();
        for _ in 0..self.rng.usize(2..16) {
            let action =
                if self.chance(0.05) { self.addition(&root, &mut workers) } else { self.any(&scenario, &workers) };
            self.append(&mut scenario, action);
        }
        scenario.actions.push(Action::Stop);
        scenario
    }

    fn nested(&mut self, root: &SupervisorOptions, declarations: &mut Vec<Declaration>) {
        let restart = self.restart();
        let significant = restart != Restart::Permanent && self.is_significant(root);
        let options = SupervisorOptions { restart, significant, ..self.supervisor() };
        declarations.push(Declaration { place: place("s"), declared: Declared::Supervisor(options.clone()) });
        for id in ["s.x", "s.y", "s.z"].iter().take(self.rng.usize(1..=3)) {
            let declared = Declared::Child(self.child(&options, &place(id)));
            declarations.push(Declaration { place: place(id), declared });
        }
    }

    fn supervisor(&mut self) -> SupervisorOptions {
        let auto = self.has(Feature::Auto, 0.15);
        SupervisorOptions {
            strategy: self.pick(&[Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne]),
            intensity: self.pick(&[0, 1, 2, 2, 3, 3, 6, 6]),
            period_secs: if self.has(Feature::Time, 0.12) { SHORT_PERIOD_SECS } else { LONG_PERIOD_SECS },
            auto_shutdown: match auto {
                true => self.pick(&[AutoShutdown::AnySignificant, AutoShutdown::AllSignificant]),
                false => AutoShutdown::Never,
            },
            ..SupervisorOptions::default()
        }
    }

    fn child(&mut self, supervisor: &SupervisorOptions, place: &Place) -> ChildOptions {
        let restart = self.restart();
        let (shutdown, stop) = self.pick(&[
            (Shutdown::default(), StopManner::Clean),
            (Shutdown::default(), StopManner::Clean),
            (Shutdown::default(), StopManner::Clean),
            (Shutdown::default(), StopManner::Normal),
            (Shutdown::default(), StopManner::Bad),
            (Shutdown::default(), StopManner::Slow(20)),
            (Shutdown::Infinity, StopManner::Clean),
            (Shutdown::BrutalKill, StopManner::Clean),
            (Shutdown::BrutalKill, StopManner::Hang),
            (Shutdown::Millis(60), StopManner::Hang),
        ]);
        let significant = restart != Restart::Permanent && self.is_significant(supervisor);
        ChildOptions { restart, shutdown, significant, start: self.plan(place), stop }
    }

    fn restart(&mut self) -> Restart {
        self.pick(&[Restart::Permanent, Restart::Permanent, Restart::Transient, Restart::Temporary])
    }

    fn is_significant(&mut self, supervisor: &SupervisorOptions) -> bool {
        supervisor.auto_shutdown != AutoShutdown::Never && self.chance(0.5)
    }

    fn plan(&mut self, place: &Place) -> StartPlan {
        use StartStep::{Fail, HoldFail, HoldOk, Ignore, Ok};
        if place.parent().is_root() && self.has(Feature::Hold, 0.1) {
            let steps = self.pick(&[vec![Ok, HoldFail], vec![Ok, HoldFail, HoldFail], vec![Ok, HoldOk]]);
            return StartPlan { steps, repeats: false };
        }
        if self.chance(0.7) {
            return StartPlan::default();
        }
        let (steps, repeats) = self.pick(&[
            (vec![Ok, Fail], false),
            (vec![Ok, Fail], true),
            (vec![Ok, Fail, Fail], false),
            (vec![Ok, Ok, Fail], false),
            (vec![Ok, Ignore], false),
            (vec![Ok, Ok, Ignore], true),
            (vec![Ignore], false),
        ]);
        // Rarely, because then the tree does not start.
        let steps = if self.chance(0.02) { vec![Fail] } else { steps };
        StartPlan { steps, repeats }
    }

    /// Any action but an addition.
    fn any(&mut self, scenario: &Scenario, workers: &[Place]) -> Action {
        if scenario.declarations.iter().any(|it| it.supervisor().is_some_and(|it| it.period_secs == SHORT_PERIOD_SECS))
            && self.chance(0.2)
        {
            return Action::Advance { millis: STEP_MS };
        }
        let mut children = workers.to_vec();
        children.extend(scenario.supervisor(&place("s")).map(|_| place("s")));
        children.push(place("ghost"));
        if self.has(Feature::Simul, 0.1) {
            return self.crashes(workers);
        }
        if children.contains(&place("s")) && self.chance(0.02) {
            return Action::Count(place("s"));
        }
        self.action(workers, &children)
    }

    fn action(&mut self, workers: &[Place], children: &[Place]) -> Action {
        let (worker, child) = (self.pick(workers), self.pick(children));
        match self.rng.usize(..100) {
            0..48 => Action::Crash(vec![worker]),
            48..60 => {
                let reason = self.pick(&["normal", "shutdown", "shutdown:why", "other"]);
                Action::Exit(worker, Reason::parse(reason))
            }
            60..67 => Action::Kill(worker),
            67..76 => Action::Terminate(child),
            76..88 => Action::Restart(child),
            88..95 => Action::Delete(child),
            _ => Action::Count(Place::root()),
        }
    }

    /// Up to three workers of one supervisor.
    fn crashes(&mut self, workers: &[Place]) -> Action {
        let parent = self.pick(workers).parent();
        let mut siblings: Vec<Place> = workers.iter().filter(|worker| worker.parent() == parent).cloned().collect();
        self.rng.shuffle(&mut siblings);
        siblings.truncate(self.rng.usize(2..=3));
        Action::Crash(siblings)
    }

    /// Mostly of a new worker, sometimes of one that there is or was.
    fn addition(&mut self, root: &SupervisorOptions, workers: &mut Vec<Place>) -> Action {
        let known: Vec<Place> = workers.iter().filter(|worker| worker.parent().is_root()).cloned().collect();
        let place = if self.chance(0.3) { self.pick(&known) } else { self.pick(&[place("m"), place("n")]) };
        if !workers.contains(&place) {
            workers.push(place.clone());
        }
        let mut options = self.child(root, &place);
        // Refused, which is a case of its own.
        options.significant |= self.chance(0.02);
        Action::add(place, options)
    }

    /// Where starts may be held, they are released now and then.
    fn append(&mut self, scenario: &mut Scenario, action: Action) {
        scenario.actions.push(action);
        let released = if scenario.has_holds() { 0.3 } else { 0.01 };
        if self.chance(released) {
            scenario.actions.push(Action::Release);
        }
    }
}

fn place(text: &str) -> Place {
    Place::parse(text).unwrap_or_else(Place::root)
}
