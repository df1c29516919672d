//! The tree of a scenario, made of our specs, each set to OTP's way.

use std::time::Duration;

use supervision::{AutoShutdown, Backoff, ChildSpec, Intensity, Restart, Shutdown, Strategy, SupervisorSpec};

use super::stage::Stage;
use crate::otp::{
    options::{self, ChildOptions, SupervisorOptions},
    scenario::{Declaration, Declared, Place, Scenario},
};

/// More than any scenario spawns.
const MAX_CHILDREN: usize = 1000;

/// The root with all that is declared below it.
pub fn root(stage: &Stage, scenario: &Scenario) -> SupervisorSpec {
    let options = scenario.supervisor(&Place::root()).cloned().unwrap_or_default();
    supervisor(stage, scenario, &Place::root(), &options)
}

/// A worker, not declared yet.
pub fn worker(stage: &Stage, place: &Place, options: &ChildOptions) -> ChildSpec {
    let (stage, own_place, own_options) = (stage.clone(), place.clone(), options.clone());
    let live = move |context| stage.clone().live(own_place.clone(), own_options.clone(), context);
    as_child(ChildSpec::task(place.id(), live).start_when_ready(), options)
}

fn supervisor(stage: &Stage, scenario: &Scenario, place: &Place, options: &SupervisorOptions) -> SupervisorSpec {
    let id = if place.is_root() { "root" } else { place.id() };
    let intensity = Intensity::new(options.intensity, Duration::from_secs(options.period_secs)).in_whole_seconds();
    let spec = SupervisorSpec::like_otp(id, strategy(options.strategy))
        .intensity(intensity)
        .auto_shutdown(auto_shutdown(options.auto_shutdown));
    // The one child of a dynamic supervisor is a template.
    let is_dynamic = options.strategy == options::Strategy::SimpleOneForOne;
    let children = scenario.children_of(place).filter(|_| !is_dynamic);
    spec.with_children(children.map(|declaration| child(stage, scenario, declaration)))
}

fn child(stage: &Stage, scenario: &Scenario, declaration: &Declaration) -> ChildSpec {
    let place = &declaration.place;
    stage.declare(place, declaration.as_child());
    match &declaration.declared {
        Declared::Child(options) => worker(stage, place, options),
        Declared::Supervisor(options) => {
            let spec = ChildSpec::supervisor(supervisor(stage, scenario, place, options));
            as_child(spec, &options.as_child())
        }
    }
}

fn as_child(spec: ChildSpec, options: &ChildOptions) -> ChildSpec {
    let spec = spec
        .backoff(Backoff::NONE)
        .start_without_limit()
        .restart(restart(options.restart))
        .stop_within(shutdown(options.shutdown));
    if options.significant { spec.significant() } else { spec }
}

fn strategy(strategy: options::Strategy) -> Strategy {
    match strategy {
        options::Strategy::OneForOne => Strategy::OneForOne,
        options::Strategy::OneForAll => Strategy::OneForAll,
        options::Strategy::RestForOne => Strategy::RestForOne,
        options::Strategy::SimpleOneForOne => Strategy::Dynamic { max_children: MAX_CHILDREN },
    }
}

fn auto_shutdown(auto_shutdown: options::AutoShutdown) -> AutoShutdown {
    match auto_shutdown {
        options::AutoShutdown::Never => AutoShutdown::Never,
        options::AutoShutdown::AnySignificant => AutoShutdown::AnySignificant,
        options::AutoShutdown::AllSignificant => AutoShutdown::AllSignificant,
    }
}

fn restart(restart: options::Restart) -> Restart {
    match restart {
        options::Restart::Permanent => Restart::Permanent,
        options::Restart::Transient => Restart::Transient,
        options::Restart::Temporary => Restart::Temporary,
    }
}

fn shutdown(shutdown: options::Shutdown) -> Shutdown {
    match shutdown {
        options::Shutdown::Millis(millis) => Shutdown::Within(Duration::from_millis(millis)),
        options::Shutdown::Infinity => Shutdown::Infinity,
        options::Shutdown::BrutalKill => Shutdown::BrutalKill,
    }
}
