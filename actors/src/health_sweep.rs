//! The actor that asks, on a beat, whether what the service stands on still answers.
//!
//! It is an actor of the plainest kind, and a good one to imitate: one message, sent by itself; useful work; a beat of
//! the heart at the end of it. All verdicts live in [`Health`], which survives a restart of the actor.
//!
//! A dependency that is away is a finding, not a failure of the actor: every probe has a deadline, and all of them are
//! asked at the same time.

pub mod probes;
pub mod status;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use serde::{Deserialize, Serialize};
use supervision::{Address, ChildContext, ChildSpec, Heartbeat};
use tokio::time::Instant;

use self::probes::Probe;
use self::status::{Health, Sample, State, Status, Thresholds};
use crate::model::now_ms;
use crate::pulse::after;

telemetry::labels! {
    /// A dependency that is asked.
    pub struct Asked<'a> { probe: &'a str }
}

telemetry::declare_metrics! {
    /// Whether a dependency is healthy, after hysteresis: 1 or 0.
    pub static STATUS: Gauge<Asked> = ("health.status", "{dependency}");
    /// How long a dependency took to answer a probe.
    pub static PROBE_DURATION: Histogram<Asked> = ("health.probe.duration", "s", [0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 2.0, 5.0]);
}

/// Where it stands in the tree.
pub const ID: &str = "health_sweep";

/// How often and how patiently the sweep asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Time between two sweeps, in milliseconds; up to a tenth of it is jitter.
    pub interval_ms: u64,
    /// What one probe may take, in milliseconds.
    pub probe_timeout_ms: u64,
    /// Bad sweeps in a row that make a dependency unhealthy.
    pub bad_sweeps: u32,
    /// Good sweeps in a row that make it healthy again.
    pub good_sweeps: u32,
    /// Dependencies without which the service is not ready: `store`, `bus`, `channels`.
    pub required: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            interval_ms: 2_000,
            probe_timeout_ms: 2_000,
            bad_sweeps: 3,
            good_sweeps: 2,
            required: vec!["store".to_owned()],
        }
    }
}

/// A required dependency that nobody can probe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no probe named {name}, there are: {known}")]
pub struct UnknownProbe {
    name: String,
    known: String,
}

/// The probes and their verdicts. Cheap to clone.
#[derive(Clone)]
pub struct Sweep {
    probes: Arc<Vec<Box<dyn Probe>>>,
    settings: Arc<Settings>,
    health: Health,
}

impl Sweep {
    /// Puts probes and settings together.
    ///
    /// # Errors
    /// [`UnknownProbe`] if a required dependency has no probe.
    pub fn new(settings: Settings, probes: Vec<Box<dyn Probe>>) -> Result<Self, UnknownProbe> {
        let known: Vec<_> = probes.iter().map(|probe| probe.name()).collect();
        if let Some(name) = settings.required.iter().find(|name| !known.contains(&name.as_str())) {
            return Err(UnknownProbe { name: name.clone(), known: known.join(", ") });
        }
        let unknown = |name: &&'static str| Status::unknown(name, settings.required.iter().any(|r| r == name));
        let health = Health::new(known.iter().map(unknown).collect());
        Ok(Self { probes: Arc::new(probes), settings: Arc::new(settings), health })
    }

    /// The verdicts, to be read by the probes of the HTTP surface.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Asks every probe once, all at the same time, and publishes the verdicts.
    pub async fn run(&self) {
        let samples = join_all(self.probes.iter().map(|probe| self.ask(probe.as_ref()))).await;
        let thresholds = Thresholds { bad_sweeps: self.settings.bad_sweeps, good_sweeps: self.settings.good_sweeps };
        let before = self.health.statuses();
        let after = before.iter().zip(samples).map(|(status, sample)| {
            let next = status.after(sample, thresholds);
            report(status, &next);
            next
        });
        self.health.store(after.collect());
    }

    async fn ask(&self, probe: &dyn Probe) -> Sample {
        let asked = Instant::now();
        let limit = Duration::from_millis(self.settings.probe_timeout_ms);
        let fault = match tokio::time::timeout(limit, probe.check(limit)).await {
            Ok(answer) => answer.err(),
            Err(_) => Some(format!("no answer within {} ms", limit.as_millis())),
        };
        let took = asked.elapsed();
        PROBE_DURATION.record(took.as_secs_f64(), Asked { probe: probe.name() });
        Sample { at_ms: now_ms(), took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX), fault }
    }
}

/// The metric always, the log only when the verdict changes.
fn report(before: &Status, after: &Status) {
    let healthy = after.state == State::Healthy;
    STATUS.set(if healthy { 1.0 } else { 0.0 }, Asked { probe: after.name });
    if before.state == after.state {
        return;
    }
    let fault = after.last().and_then(|sample| sample.fault.as_deref()).unwrap_or_default();
    match (healthy, after.required) {
        (true, _) => tracing::info!(probe = after.name, "dependency is healthy"),
        (false, required) => tracing::warn!(probe = after.name, required, fault, "dependency is unhealthy"),
    }
}

/// The child of the root that runs `sweep`.
#[must_use]
pub fn health_sweep(sweep: &Sweep) -> ChildSpec {
    let sweep = sweep.clone();
    ChildSpec::actor(ID, &Address::new(ID), move |context| (HealthSweep, (context, sweep.clone())))
}

struct HealthSweep;

/// The one message: sweep now.
#[derive(Debug)]
pub struct Beat;

/// What one incarnation works with.
pub struct Working {
    context: ChildContext,
    sweep: Sweep,
    heartbeat: Heartbeat,
}

impl Actor for HealthSweep {
    type Msg = Beat;
    type State = Working;
    type Arguments = (ChildContext, Sweep);

    async fn pre_start(
        &self,
        myself: ActorRef<Beat>,
        (context, sweep): Self::Arguments,
    ) -> Result<Working, ActorProcessingErr> {
        let interval = Duration::from_millis(sweep.settings.interval_ms);
        let heartbeat = context.heartbeat("sweep", interval);
        myself.cast(Beat)?;
        Ok(Working { context, sweep, heartbeat })
    }

    async fn handle(&self, myself: ActorRef<Beat>, _: Beat, state: &mut Working) -> Result<(), ActorProcessingErr> {
        let stopped = state.context.cancelled();
        // A probe may take longer than this actor has to stop.
        tokio::select! {
            () = state.sweep.run() => state.heartbeat.beat(),
            () = stopped.cancelled() => return Ok(()),
        }
        let interval = Duration::from_millis(state.sweep.settings.interval_ms);
        after(&state.context, myself, interval.mul_f64(0.9 + 0.1 * fastrand::f64()), || Beat);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use async_trait::async_trait;
    use supervision::{Heartbeats, Shutdown, Strategy, SupervisorSpec, Tree};

    use super::*;

    /// Answers while the switch is on, and not at all otherwise.
    struct Switch(&'static str, Arc<AtomicBool>);

    #[async_trait]
    impl Probe for Switch {
        fn name(&self) -> &'static str {
            self.0
        }

        async fn check(&self, _limit: Duration) -> Result<(), String> {
            if self.1.load(Ordering::SeqCst) { Ok(()) } else { std::future::pending().await }
        }
    }

    fn sweep() -> (Sweep, Arc<AtomicBool>, Arc<AtomicBool>) {
        let (store, bus) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(true)));
        let probes: Vec<Box<dyn Probe>> =
            vec![Box::new(Switch("store", Arc::clone(&store))), Box::new(Switch("bus", Arc::clone(&bus)))];
        (Sweep::new(Settings::default(), probes).unwrap(), store, bus)
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_store_is_unhealthy_after_three_sweeps_and_back_after_two() {
        let (sweep, store, _bus) = sweep();
        sweep.run().await;
        assert!(sweep.health().required_ok());
        store.store(false, Ordering::SeqCst);
        sweep.run().await;
        sweep.run().await;
        assert!(sweep.health().required_ok());
        sweep.run().await;
        assert_eq!(sweep.health().required_faults(), ["store: no answer within 2000 ms"]);
        store.store(true, Ordering::SeqCst);
        sweep.run().await;
        assert!(!sweep.health().required_ok());
        sweep.run().await;
        assert!(sweep.health().required_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn probes_are_asked_at_the_same_time_and_a_silent_one_holds_up_nobody() {
        let (sweep, store, bus) = sweep();
        store.store(false, Ordering::SeqCst);
        bus.store(false, Ordering::SeqCst);
        let started = Instant::now();
        sweep.run().await;
        assert_eq!(started.elapsed(), Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn the_actor_sweeps_beats_and_stops_at_once_although_a_probe_hangs() {
        let (sweep, store, _bus) = sweep();
        let heartbeats = Heartbeats::new();
        let child = health_sweep(&sweep).stop_within(Shutdown::Within(Duration::from_millis(500)));
        let root = SupervisorSpec::new("root", Strategy::OneForOne).child(child);
        let tree = Tree::start(root, heartbeats.clone()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(21)).await;
        assert!(sweep.health().required_ok());
        assert!(sweep.health().statuses()[0].history.len() >= 10);
        assert!(heartbeats.is_healthy(&[ID], Duration::from_secs(2)));

        store.store(false, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_secs(3)).await;
        let report = tree.stop().await;
        assert!(report.is_clean(), "{report:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_sweep_passes_the_battery() {
        let (sweep, ..) = sweep();
        let report = supervision::battery::run(|| health_sweep(&sweep)).await;
        assert_eq!(report.skipped().count(), 2, "all but the flood and what is for tasks: {report}");
    }

    #[test]
    fn a_required_dependency_without_a_probe_is_refused() {
        let settings = Settings { required: vec!["redis".to_owned()], ..Settings::default() };
        let probes: Vec<Box<dyn Probe>> = vec![Box::new(Switch("store", Arc::default()))];
        let refused = Sweep::new(settings, probes).err().unwrap();
        assert_eq!(refused.to_string(), "no probe named redis, there are: store");
    }
}
