//! How a stop is told: in its span, the log, the metrics, the events and the report.

use std::time::Duration;

use tracing::field::DebugValue;

use super::{
    slot::State,
    state::{Sequence, Supervisor},
};
use crate::{ChildStop, EventKind, StopOutcome, context::Component};

telemetry::declare_spans! {
    /// One child is stopped: below `shutdown` or `supervisor.stop`, or a root if it is stopped for another reason.
    pub(super) struct ChildStopSpan<'a> = ("child.stop", internal, child_of) {
        path: &'a str,
    } later {
        outcome: DebugValue<&StopOutcome>,
    }
}

telemetry::declare_metrics! {
    /// Time to stop one child, from being asked to being gone.
    pub static STOP_DURATION: Histogram<Component> = ("supervisor.stop.duration", "s", [0.001, 0.01, 0.1, 1.0, 10.0]);
    /// Children that outlived their kill and still run.
    pub static LEAKED: Counter<Component> = ("supervisor.leaked", "{child}");
}

impl Supervisor {
    /// Writes down how a stop went.
    pub(super) fn note_stop(
        &mut self,
        sequence: Sequence,
        outcome: StopOutcome,
        took: Duration,
        below: Vec<ChildStop>,
    ) {
        let Some(slot) = self.slots.get(&sequence) else { return };
        let (path, incarnation) = (slot.path().clone(), slot.incarnation());
        if let State::Stopping(stopping) = &slot.state {
            ChildStopSpan::outcome(&stopping.span, tracing::field::debug(&outcome));
        }
        match &outcome {
            StopOutcome::Stopped => tracing::debug!(%path, ?took, "child stopped"),
            outcome if self.is_dynamic() && self.ending.is_some() => {
                *self.unclean.entry(outcome.label()).or_default() += 1;
            }
            outcome => tracing::warn!(%path, incarnation, ?took, ?outcome, "child did not stop cleanly"),
        }
        STOP_DURATION.record(took.as_secs_f64(), slot.node.identity.as_component());
        let line = ChildStop { path, outcome: outcome.clone(), took, budget: slot.spec.shutdown };
        self.emit(sequence, EventKind::Stopped { outcome, took });
        if self.ending.is_some() {
            self.report.extend(below);
            self.report.push(line);
        }
    }

    /// Dynamic children that did not stop cleanly, one line for each outcome.
    pub(super) fn tell_unclean(&self) {
        let path = self.context.path();
        for (outcome, children) in &self.unclean {
            tracing::warn!(%path, outcome, children, "children did not stop cleanly");
        }
    }
}
