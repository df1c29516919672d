//! What happens in the tree, as it happens.

use std::{fmt, time::Duration};

use serde::Serialize;

use crate::{Exit, Path, StopOutcome, StuckIn, report::as_millis};

/// One event of the tree. Subscribe with [`Tree::events`](crate::Tree::events); a subscriber that is too slow is told how
/// many it missed.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// The child (the empty path is the root).
    pub path: Path,
    /// Which of its incarnations.
    pub incarnation: u64,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened to a child.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    /// It serves.
    Started {
        /// From the start of its start function.
        #[serde(rename = "took_ms", serialize_with = "as_millis")]
        took: Duration,
    },
    /// It declined to start.
    Ignored,
    /// It did not start.
    StartFailed {
        /// Why.
        exit: Exit,
        /// Whether an operator asked for the start, who hears of it: then it is not tried again.
        by_hand: bool,
    },
    /// It ended by itself.
    Exited {
        /// How.
        exit: Exit,
    },
    /// It will be started again.
    RestartScheduled {
        /// After this long.
        #[serde(rename = "delay_ms", serialize_with = "as_millis")]
        delay: Duration,
    },
    /// Its restart budget is used up; it is tried again at the slow beat.
    Degraded,
    /// After having been degraded it ran well for long enough.
    Recovered,
    /// It is alive but stuck. Told once, until it goes on.
    Stuck {
        /// Where.
        place: StuckIn,
    },
    /// A child that was stuck goes on.
    Unstuck,
    /// It was stopped.
    Stopped {
        /// How that went.
        outcome: StopOutcome,
        /// From being asked to being gone.
        #[serde(rename = "took_ms", serialize_with = "as_millis")]
        took: Duration,
    },
    /// A leaked incarnation has ended after all.
    LeakEnded,
    /// It is a supervisor that ends because of this child.
    GaveUp {
        /// The child.
        child: Path,
        /// How that child ended.
        exit: Exit,
    },
}

/// In one line: the path, which names the supervisor and the child, its incarnation, what happened, and why.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match &self.kind {
            EventKind::Started { took } => format!("started in {took:?}"),
            EventKind::Ignored => "declined to start".to_owned(),
            EventKind::StartFailed { exit, .. } => format!("did not start: it {exit}"),
            EventKind::Exited { exit } => exit.to_string(),
            EventKind::RestartScheduled { delay } => format!("is started again in {delay:?}"),
            EventKind::Degraded => "is degraded: its restart budget is used up".to_owned(),
            EventKind::Recovered => "has recovered".to_owned(),
            EventKind::Stuck { place } => format!("is stuck in {place}"),
            EventKind::Unstuck => "goes on".to_owned(),
            EventKind::Stopped { outcome: StopOutcome::Failed(exit), took } => {
                format!("was asked to stop, and {exit} after {took:?}")
            }
            EventKind::Stopped { outcome, took } => format!("{} after {took:?}", outcome.label()),
            EventKind::LeakEnded => "had leaked and has ended".to_owned(),
            EventKind::GaveUp { child, exit } => format!("gives up on {child}, which {exit}"),
        };
        write!(f, "{}#{} {}", self.path, self.incarnation, what.replace(['\n', '\r'], " "))
    }
}
