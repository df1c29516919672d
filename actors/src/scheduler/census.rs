//! Counts the jobs, for whoever watches. The more there are, the longer that takes: it has no more than a hundredth of the time.

use std::sync::Arc;
use std::time::Duration;

use supervision::ChildContext;
use tokio::time::Instant;

use super::Shared;
use super::pulse::{Park, jittered};
use crate::model::now_ms;
use crate::store::JobCounts;

telemetry::labels! {
    /// Jobs in one state.
    pub struct InState { state: State }
}

telemetry::label_values! {
    /// The states that are counted apart; `waiting` is all that is not due yet.
    pub enum State {
        Waiting = "waiting",
        Ready = "ready",
        Running = "running",
        Done = "done",
        Dead = "dead",
        Cancelled = "cancelled",
    }
}

telemetry::declare_metrics! {
    /// Jobs in the store, by state.
    pub static KEPT: Gauge<InState> = ("job.kept", "{job}");
    /// When the jobs in the store were last counted, in Unix time.
    pub static COUNTED: Gauge = ("job.counted_timestamp", "s");
}

/// After a count there is none for so many times as long as it took.
const REST: u32 = 99;
/// But for no longer than this.
const REST_MAX: Duration = Duration::from_secs(600);

/// Counts for as long as the incarnation of this child lives.
pub(super) fn keep(context: &ChildContext, shared: Arc<Shared>) {
    let ended = context.tasks().token();
    context.tasks().spawn("census", async move {
        tokio::select! {
            () = ended.cancelled() => {}
            () = count_on(&shared) => {}
        }
    });
}

async fn count_on(shared: &Shared) {
    let mut park = Park::new("census", shared.settings.park_max_ms);
    loop {
        let began = Instant::now();
        let least = match shared.store.job_counts().await {
            Ok(counts) => {
                park.ok();
                show(counts);
                jittered(shared.settings.sweep_interval_ms)
            }
            Err(error) => park.failed(&error),
        };
        tokio::time::sleep(least.max((began.elapsed() * REST).min(REST_MAX))).await;
    }
}

fn show(counts: JobCounts) {
    let JobCounts { waiting, ready, running, done, dead, cancelled } = counts;
    let live = [(State::Waiting, waiting), (State::Ready, ready), (State::Running, running)];
    let finished = [(State::Done, done), (State::Dead, dead), (State::Cancelled, cancelled)];
    for (state, count) in live.into_iter().chain(finished) {
        KEPT.set(count as f64, InState { state });
    }
    COUNTED.set(now_ms() as f64 / 1_000.0, ());
}
