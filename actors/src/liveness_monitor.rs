//! The actor that watches the heartbeats of all, its own among them.
//!
//! It changes nothing: it measures on a beat, and says a word when a loop becomes late, hangs, or is back. What
//! `/admin/liveness` and `/healthz` answer comes from [`view::LivenessView`] and does not need this actor to be alive.
//!
//! *Stale* is alive and late: no tick for twice the promised interval. An idle loop is not stale, because a loop with
//! nothing to do still ticks. *Wedged* is late for so long that only a restart of the process may help.

pub mod view;

use std::collections::BTreeMap;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use serde::{Deserialize, Serialize};
use supervision::{Address, ChildContext, ChildSpec, Heartbeat};

use crate::pulse::after;

use self::view::{Liveness, LivenessView, Loop, State};

telemetry::labels! {
    /// Loops of one name.
    pub struct OfLoop<'a> {
        component: &'a str,
        #[name = "loop"]
        name: &'a str,
    }
    /// All loops of a child of the root.
    pub struct Component<'a> { component: &'a str }
    /// How late a loop became.
    pub struct Late<'a> { component: &'a str, state: State }
}

telemetry::label_values! { State, |state: &State| state.as_str(), [State::Stale.as_str(), State::Wedged.as_str()] }

telemetry::declare_metrics! {
    /// Time since the last tick of a loop; of several loops of one name, the oldest.
    pub static AGE: Gauge<OfLoop> = ("heartbeat.age", "s");
    /// Loops that are late now: stale or wedged.
    pub static STUCK: Gauge<Component> = ("heartbeat.stuck", "{loop}");
    /// Times that a loop became late, by how late.
    pub static BECAME_STUCK: Counter<Late> = ("heartbeat.became_stuck", "{loop}");
}

/// Where it stands in the tree.
pub const ID: &str = "liveness_monitor";

/// How often the monitor looks, and what it calls wedged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Time between two looks, in milliseconds; up to a tenth less by jitter.
    pub interval_ms: u64,
    /// A loop without a tick for this long is wedged. More than any deadline of the store, or a store that is away would
    /// look like a loop that hangs.
    pub wedged_after_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { interval_ms: 1_000, wedged_after_ms: 60_000 }
    }
}

impl Settings {
    /// The limit as a duration.
    #[must_use]
    pub fn wedged_after(&self) -> Duration {
        Duration::from_millis(self.wedged_after_ms)
    }
}

/// The child of the root that looks through `view`.
#[must_use]
pub fn liveness_monitor(view: &LivenessView, settings: &Settings) -> ChildSpec {
    let (view, interval) = (view.clone(), Duration::from_millis(settings.interval_ms));
    ChildSpec::actor(ID, &Address::new(ID), move |context| (LivenessMonitor, (context, view.clone(), interval)))
}

struct LivenessMonitor;

/// The one message: look now.
#[derive(Debug)]
pub struct Beat;

/// What one incarnation works with.
pub struct Working {
    context: ChildContext,
    view: LivenessView,
    interval: Duration,
    heartbeat: Heartbeat,
    watch: Watch,
}

impl Actor for LivenessMonitor {
    type Msg = Beat;
    type State = Working;
    type Arguments = (ChildContext, LivenessView, Duration);

    async fn pre_start(
        &self,
        myself: ActorRef<Beat>,
        (context, view, interval): Self::Arguments,
    ) -> Result<Working, ActorProcessingErr> {
        let heartbeat = context.heartbeat("watch", interval);
        myself.cast(Beat)?;
        Ok(Working { context, view, interval, heartbeat, watch: Watch::default() })
    }

    async fn handle(&self, myself: ActorRef<Beat>, _: Beat, state: &mut Working) -> Result<(), ActorProcessingErr> {
        let liveness = state.view.snapshot();
        for change in state.watch.changes(&liveness) {
            change.tell();
        }
        measure(&liveness);
        state.heartbeat.beat();
        after(&state.context, myself, state.interval.mul_f64(0.9 + 0.1 * fastrand::f64()), || Beat);
        Ok(())
    }
}

/// A loop that became late, or is back.
#[derive(Debug, PartialEq)]
struct Change {
    component: String,
    path: String,
    name: &'static str,
    state: State,
    seconds_ago: f64,
}

impl Change {
    fn tell(&self) {
        let Self { component, path, name, state, seconds_ago } = self;
        if *state < State::Stale {
            return tracing::info!(%path, name, "loop beats again");
        }
        BECAME_STUCK.add(1, Late { component, state: *state });
        tracing::warn!(%path, name, state = state.as_str(), seconds_ago, "loop is stuck");
    }
}

/// Remembers which loops are late, and only those, so it never grows beyond the loops there are.
#[derive(Debug, Default)]
struct Watch(BTreeMap<(String, &'static str), State>);

impl Watch {
    fn changes(&mut self, liveness: &Liveness) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut late = BTreeMap::new();
        for (component, each) in all_loops(liveness) {
            let key = (each.path.clone(), each.name);
            let before = self.0.get(&key).copied();
            let now = (each.state >= State::Stale).then_some(each.state);
            if before != now {
                changes.push(Change {
                    component: component.to_owned(),
                    path: each.path.clone(),
                    name: each.name,
                    state: each.state,
                    seconds_ago: each.seconds_ago,
                });
            }
            if let Some(state) = now {
                late.insert(key, state);
            }
        }
        self.0 = late;
        changes
    }
}

/// Labels are the component and the name of the loop, never the path, which may hold an id.
fn measure(liveness: &Liveness) {
    let mut ages: BTreeMap<(&str, &str), f64> = BTreeMap::new();
    for (component, each) in all_loops(liveness) {
        let age = ages.entry((component, each.name)).or_default();
        *age = age.max(each.seconds_ago);
    }
    for ((component, name), age) in ages {
        AGE.set(age, OfLoop { component, name });
    }
    for part in &liveness.subsystems {
        let stuck = part.loops.iter().filter(|each| each.state >= State::Stale).count();
        STUCK.set(stuck as f64, Component { component: &part.name });
    }
}

fn all_loops(liveness: &Liveness) -> impl Iterator<Item = (&str, &Loop)> {
    liveness.subsystems.iter().flat_map(|part| part.loops.iter().map(|each| (part.name.as_str(), each)))
}

#[cfg(test)]
mod tests;
