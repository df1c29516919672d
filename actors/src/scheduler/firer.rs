//! Turns due schedules into jobs.
//!
//! Any number of processes may do it at once: the store lets each fire happen once.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use supervision::{ChildContext, ChildSpec, Heartbeat};
use tokio_util::sync::CancellationToken;

use super::pulse::{Park, Pulse, jittered, until_stop};
use super::{Shared, settings};
use crate::seam::seam;
use crate::store::{Fence, FireDue, FireReport, Fired, Wakeups};

telemetry::declare_metrics! {
    /// Schedules that fired and made a job.
    pub static FIRED: Counter = ("schedule.fired", "{fire}");
    /// Fires that were missed: too old to be made up for, too many, or their tenant was disabled.
    pub static MISSED: Counter = ("schedule.missed", "{fire}");
    /// Fires that made no job, because that of an earlier one had not ended.
    pub static OVERLAPPED: Counter = ("schedule.overlapped", "{fire}");
    /// Fires that had to wait for the end of an earlier one's job.
    pub static BUFFERED: Counter = ("schedule.buffered", "{fire}");
    /// Jobs that were cancelled for the next fire of their schedule.
    pub static OVERTAKEN: Counter = ("schedule.overtaken", "{job}");
    /// Time from when a fire was due to when it made its job.
    pub static FIRE_LATENESS: Histogram = ("schedule.fire.lateness", "s", [0.001, 0.01, 0.1, 1.0, 10.0, 60.0, 3600.0]);
}

pub(super) const ID: &str = "firer";

pub(super) fn child(shared: Arc<Shared>) -> ChildSpec {
    super::actor(ID, settings::SMALL_STOP, shared, || Firer)
}

/// The actor. Its work is in [`Working::fire`].
pub(super) struct Firer;

/// The one message: look now.
#[derive(Debug)]
pub(super) struct Look;

/// What one incarnation works with.
pub(super) struct Working {
    shared: Arc<Shared>,
    stopped: CancellationToken,
    pulse: Pulse,
    park: Park,
    heartbeat: Heartbeat,
}

impl Actor for Firer {
    type Msg = Look;
    type State = Working;
    type Arguments = (ChildContext, Arc<Shared>);

    async fn pre_start(
        &self,
        myself: ActorRef<Look>,
        (context, shared): Self::Arguments,
    ) -> Result<Working, ActorProcessingErr> {
        seam!("inside_start");
        for counter in [&FIRED, &MISSED, &OVERLAPPED, &BUFFERED, &OVERTAKEN] {
            counter.born(());
        }
        Ok(Working {
            stopped: context.cancelled(),
            pulse: Pulse::start(&context, myself, shared.firer.clone(), || Look),
            park: Park::new(ID, shared.settings.park_max_ms),
            heartbeat: context.heartbeat(ID, Duration::from_millis(shared.settings.fire_interval_ms)),
            shared,
        })
    }

    async fn handle(&self, _: ActorRef<Look>, _: Look, state: &mut Working) -> Result<(), ActorProcessingErr> {
        let stopped = state.stopped.clone();
        if let Some(wait) = until_stop(&stopped, settings::SMALL_STOP / 2, state.fire()).await {
            state.heartbeat.beat();
            state.pulse.next(wait);
        }
        Ok(())
    }
}

impl Working {
    /// Fires what is due and answers how long to wait: until the next schedule, or the interval.
    async fn fire(&mut self) -> Duration {
        let settings = &self.shared.settings;
        let request = FireDue { limit: settings.batch, catch_up_window_ms: settings.catch_up_window_ms };
        match self.shared.store.fire_due(request).await {
            Ok(report) => {
                self.park.ok();
                self.tell(&report);
                let next = report.next_due_in_ms.map_or(Duration::MAX, Duration::from_millis);
                jittered(settings.fire_interval_ms).min(next)
            }
            Err(error) => self.park.failed(&error),
        }
    }

    fn tell(&self, report: &FireReport) {
        MISSED.add(report.missed, ());
        OVERLAPPED.add(report.overlapped, ());
        BUFFERED.add(report.buffered, ());
        started(&self.shared, &report.fired, &report.cancelled);
        for fired in &report.fired {
            FIRE_LATENESS.record(fired.late_ms as f64 / 1_000.0, ());
        }
    }
}

/// Jobs that were made by fires, and those that were cancelled for them. What runs here is told at once, what runs in
/// another process with its next heartbeat.
pub(super) fn started(shared: &Shared, fired: &[Fired], cancelled: &[Fence]) {
    FIRED.add(fired.len() as u64, ());
    OVERTAKEN.add(cancelled.len() as u64, ());
    for fence in cancelled {
        shared.flight.lose(fence);
    }
    if !fired.is_empty() || !cancelled.is_empty() {
        shared.claimer.poke();
    }
    if !fired.is_empty() {
        shared.wakeups.tell(Wakeups::ALL);
    }
}
