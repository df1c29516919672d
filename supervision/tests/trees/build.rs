//! The specs of a case.

use std::sync::Arc;

use supervision::{ChildSpec, FirstStart, OnGiveUp, SupervisorSpec};

use super::{
    case::{Case, Node, Rules, What},
    worker,
    world::World,
};

/// The supervisor with this number, and all that is declared below it.
pub fn supervisor(case: &Case, number: usize, rules: &Rules, world: &Arc<World>) -> SupervisorSpec {
    let id = if number == 0 { "root".to_owned() } else { Node::id(number) };
    let spec = SupervisorSpec::new(id, rules.strategy)
        .auto_shutdown(rules.auto_shutdown)
        .group_restart(rules.group_restart)
        .give_up_as(rules.give_up_as);
    let spec = match rules.intensity {
        Some(intensity) => spec.intensity(intensity),
        None => spec.no_shared_intensity(),
    };
    let spec = if rules.is_serial { spec.one_at_a_time() } else { spec };
    spec.with_children(case.children(number).filter(|node| !node.is_added).map(|node| child(case, node, world)))
}

/// One child, and all that is declared below it.
pub fn child(case: &Case, node: &Node, world: &Arc<World>) -> ChildSpec {
    let id = Node::id(node.number);
    let spec = match &node.what {
        What::Supervisor(rules) => ChildSpec::supervisor(supervisor(case, node.number, rules, world)),
        What::Actor(conduct) => worker::actor(node.number, &id, world, conduct).on_stuck(conduct.on_stuck),
        What::Task(conduct) => worker::task(node.number, &id, world, conduct).on_stuck(conduct.on_stuck),
    };
    with_options(spec.restart(node.restart).stop_within(node.shutdown).backoff(node.backoff), node)
}

fn with_options(mut spec: ChildSpec, node: &Node) -> ChildSpec {
    if let Some(budget) = node.start_budget {
        spec = spec.start_within(budget);
    }
    if let Some(intensity) = node.intensity {
        spec = spec.intensity(intensity);
    }
    if let Some(retry) = node.degrades {
        spec = spec.on_give_up(OnGiveUp::Degrade { retry });
    }
    if node.may_fail_first {
        spec = spec.on_first_start(FirstStart::Retry);
    }
    if let Some(group) = node.stop_group {
        spec = spec.stop_group(group);
    }
    if node.is_significant { spec.significant() } else { spec }
}
