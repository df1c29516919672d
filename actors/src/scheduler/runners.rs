//! Runs claimed jobs, each in a task of its own.
//!
//! A job that panics costs itself one attempt; the actor never notices. A run that is cut off in any other way (the actor
//! fails, the budget of the stop is over) gives its job back through [`Run`]'s drop.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use supervision::{ChildContext, ChildSpec, Errand, Heartbeat};
use tokio::time::{Instant, timeout};

use super::flight::Departure;
use super::pulse::{Pulse, jittered};
use super::{Shared, settings};
use crate::jobs::{RunSite, told_of};
use crate::seam::seam;
use crate::store::{Fence, Outcome, OutcomeName, Settlement};

telemetry::labels! {
    /// An attempt, by the kind of its job and by how it ended. A kind that no handler knows is `unknown`.
    pub struct RunOf<'a> { kind: &'a str, outcome: OutcomeName }
}

telemetry::declare_metrics! {
    /// Jobs that run in this process now.
    pub static RUNNING: UpDownCounter = ("job.running", "{job}");
    /// Time that one attempt took, by kind and outcome.
    pub static RUN_DURATION: Histogram<RunOf> = ("job.run.duration", "s", [0.001, 0.01, 0.1, 1.0, 10.0, 60.0, 600.0]);
}

pub(super) const ID: &str = "runners";

pub(super) fn child(shared: Arc<Shared>) -> ChildSpec {
    let budget = shared.settings.runners_stop();
    super::actor(ID, budget, shared, || Runners)
}

/// The actor. Its work is in [`Working::start_runs`].
pub(super) struct Runners;

/// The one message: jobs may be waiting, and a place free.
#[derive(Debug)]
pub(super) struct Look;

/// What one incarnation works with.
pub(super) struct Working {
    shared: Arc<Shared>,
    context: ChildContext,
    site: Arc<RunSite>,
    pulse: Pulse,
    heartbeat: Heartbeat,
}

impl Actor for Runners {
    type Msg = Look;
    type State = Working;
    type Arguments = (ChildContext, Arc<Shared>);

    async fn pre_start(
        &self,
        myself: ActorRef<Look>,
        (context, shared): Self::Arguments,
    ) -> Result<Working, ActorProcessingErr> {
        let interval = Duration::from_millis(shared.settings.poll_interval_ms);
        let site = RunSite { component: context.component().to_owned(), actor: context.path().to_string() };
        RUNNING.born(());
        Ok(Working {
            site: Arc::new(site),
            pulse: Pulse::start(&context, myself, shared.runners.clone(), || Look),
            heartbeat: context.heartbeat(ID, interval),
            shared,
            context,
        })
    }

    async fn handle(&self, _: ActorRef<Look>, _: Look, state: &mut Working) -> Result<(), ActorProcessingErr> {
        if !state.context.cancelled().is_cancelled() {
            state.start_runs();
            state.heartbeat.beat();
            state.pulse.next(jittered(state.shared.settings.poll_interval_ms));
        }
        Ok(())
    }

    /// Nothing new begins; what runs may end, is then cancelled, and is at last given back.
    async fn post_stop(&self, _: ActorRef<Look>, state: &mut Working) -> Result<(), ActorProcessingErr> {
        let shared = &state.shared;
        seam!("inside_stop");
        let given_back = shared.flight.give_back_waiting();
        shared.settler.poke();
        if timeout(shared.settings.drain(), shared.flight.until_idle()).await.is_err() {
            let running = shared.flight.running();
            tracing::warn!(running, given_back, "jobs still run at the end of the drain, cancelling them");
            shared.flight.cancel_all();
            let grace = Duration::from_millis(shared.settings.cancel_grace_ms) + settings::RUNNERS_MARGIN / 2;
            let _ = timeout(grace, shared.flight.until_idle()).await;
        }
        state.context.tasks().abort();
        Ok(())
    }
}

impl Working {
    fn start_runs(&self) {
        while let Some(departure) = self.shared.flight.depart(self.shared.settings.concurrency as usize) {
            let (shared, site) = (Arc::clone(&self.shared), Arc::clone(&self.site));
            let run = Run::begin(shared, departure.job.fence());
            let errand = Errand {
                tenant: Some(departure.job.tenant.to_string()),
                detail: told_of(&departure.job),
                if_it_panics: Some("the job is given back, and runs again"),
            };
            self.context.tasks().spawn_errand("job", errand, run.finish(site, departure));
        }
    }
}

/// One run. However it is left, its end is reported, once.
struct Run {
    shared: Arc<Shared>,
    fence: Fence,
    reported: bool,
}

impl Run {
    fn begin(shared: Arc<Shared>, fence: Fence) -> Self {
        RUNNING.add(1, ());
        Self { shared, fence, reported: false }
    }

    async fn finish(self, site: Arc<RunSite>, Departure { job, reins }: Departure) {
        let began = Instant::now();
        // A tenant chooses the kind freely; only those that there is a handler for become a label.
        let kind = self.shared.run.handlers.known(&job.kind).unwrap_or("unknown");
        let settlement = self.shared.run.run(&site, job, reins).await;
        RUN_DURATION.record(began.elapsed().as_secs_f64(), RunOf { kind, outcome: settlement.outcome.name() });
        self.report(settlement);
    }

    fn report(mut self, settlement: Settlement) {
        self.reported = true;
        self.shared.flight.ended(settlement);
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if !self.reported {
            self.shared.flight.ended(Settlement::new(self.fence, Outcome::Release));
        }
        RUNNING.add(-1, ());
        self.shared.settler.poke();
        self.shared.runners.poke();
    }
}
