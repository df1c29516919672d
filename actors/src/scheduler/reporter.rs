//! Writes down how far running jobs are, at most once a second for each, and tells those who listen.
//!
//! A handler never waits for it. A report that is overtaken by the next one, or by the end of its job, is not written.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use serde_json::json;
use supervision::{ChildContext, ChildSpec, Heartbeat};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::flight::Report;
use super::pulse::{Park, Pulse, jittered, until_stop};
use super::{Shared, settings};
use crate::model::{Event, new_id, now_ms};
use crate::store::{Settled, StoreError};

telemetry::declare_metrics! {
    /// Reports of running jobs that were written.
    pub static REPORTED: Counter = ("job.progress.reported", "{report}");
    /// Reports that were written, but could not be told to those who listen.
    pub static UNTOLD: Counter = ("job.progress.untold", "{report}");
}

/// Time between two rounds at least, and so between two reports of one job.
const EVERY: Duration = Duration::from_secs(1);

pub(super) const ID: &str = "reporter";

pub(super) fn child(shared: Arc<Shared>) -> ChildSpec {
    super::actor(ID, settings::SMALL_STOP, shared, || Reporter)
}

/// The actor. Its work is in [`Working::report`].
pub(super) struct Reporter;

/// The one message: there may be news.
#[derive(Debug)]
pub(super) struct Look;

/// What one incarnation works with.
pub(super) struct Working {
    shared: Arc<Shared>,
    stopped: CancellationToken,
    pulse: Pulse,
    park: Park,
    heartbeat: Heartbeat,
    /// When the next round may be.
    not_before: Instant,
}

impl Actor for Reporter {
    type Msg = Look;
    type State = Working;
    type Arguments = (ChildContext, Arc<Shared>);

    async fn pre_start(
        &self,
        myself: ActorRef<Look>,
        (context, shared): Self::Arguments,
    ) -> Result<Working, ActorProcessingErr> {
        REPORTED.born(());
        UNTOLD.born(());
        let interval_ms = shared.settings.poll_interval_ms;
        Ok(Working {
            stopped: context.cancelled(),
            pulse: Pulse::start(&context, myself, shared.flight.reports().clone(), || Look),
            park: Park::new(ID, shared.settings.park_max_ms),
            heartbeat: context.heartbeat(ID, Duration::from_millis(interval_ms)),
            not_before: Instant::now(),
            shared,
        })
    }

    async fn handle(&self, _: ActorRef<Look>, _: Look, state: &mut Working) -> Result<(), ActorProcessingErr> {
        let stopped = state.stopped.clone();
        if let Some(wait) = until_stop(&stopped, settings::SMALL_STOP / 2, state.look()).await {
            state.heartbeat.beat();
            state.pulse.next(wait);
        }
        Ok(())
    }
}

impl Working {
    /// One round if it may be, and how long to wait for the next.
    async fn look(&mut self) -> Duration {
        let early = self.not_before.saturating_duration_since(Instant::now());
        if !early.is_zero() {
            return early;
        }
        let reports = self.shared.flight.collect();
        if reports.is_empty() {
            return jittered(self.shared.settings.poll_interval_ms);
        }
        self.not_before = Instant::now() + EVERY;
        match self.write(&reports).await {
            Ok(()) => self.park.ok(),
            Err(error) => {
                reports.iter().for_each(|report| report.slot.put_back());
                return self.park.failed(&error).max(EVERY);
            }
        }
        EVERY
    }

    async fn write(&self, reports: &[Report]) -> Result<(), StoreError> {
        let batch: Vec<_> = reports.iter().map(|report| (report.fence, report.progress.clone())).collect();
        let answers = self.shared.store.report_progress(&batch).await?;
        let written = reports.iter().zip(answers).filter(|(_, answer)| *answer == Settled::Applied);
        let written: Vec<&Report> = written.map(|(report, _)| report).collect();
        REPORTED.add(written.len() as u64, ());
        self.tell(&written).await;
        Ok(())
    }

    /// Whoever does not hear it reads it: after the first refusal nobody waits for the bus any more.
    async fn tell(&self, written: &[&Report]) {
        let Some(bus) = self.shared.bus.get() else { return };
        for (told, report) in written.iter().enumerate() {
            if let Err(error) = bus.publish(event(report)).await {
                UNTOLD.add((written.len() - told) as u64, ());
                tracing::debug!(%error, "progress of jobs is not told");
                return;
            }
        }
    }
}

fn event(report: &Report) -> Event {
    let job = report.fence.id;
    Event {
        id: new_id(),
        tenant: report.tenant.clone(),
        topic: format!("jobs.{job}"),
        data: json!({ "type": "progress", "job": job, "progress": report.progress }),
        context: report.context.clone(),
        at_ms: now_ms(),
    }
}
