//! What a stop did to each child.

use std::time::Duration;

use serde::Serialize;

use crate::{Exit, Path, Shutdown};

/// How the stop of one child went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StopOutcome {
    /// It ended orderly within its budget, or was killed at once as its spec says.
    Stopped,
    /// It failed while it was stopping, or just before.
    Failed(Exit),
    /// It outlived its budget and was killed.
    Killed,
    /// It outlived the kill as well: it is still running.
    Leaked,
}

impl StopOutcome {
    /// One word for logs: `stopped`, `failed`, `killed` or `leaked`.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Failed(_) => "failed",
            Self::Killed => "killed",
            Self::Leaked => "leaked",
        }
    }
}

/// One child's line of the stop report.
#[derive(Clone, Debug, Serialize)]
pub struct ChildStop {
    /// The child.
    pub path: Path,
    /// How it ended.
    pub outcome: StopOutcome,
    /// From being asked to being gone (or given up on).
    #[serde(rename = "took_ms", serialize_with = "as_millis")]
    pub took: Duration,
    /// What it was allowed.
    pub budget: Shutdown,
}

/// Every child that was stopped, in the order in which they ended: the exact reverse of the start order, a supervisor
/// after its own children.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StopReport {
    /// One line for each child.
    pub children: Vec<ChildStop>,
    /// The whole stop.
    #[serde(rename = "took_ms", serialize_with = "as_millis")]
    pub took: Duration,
}

impl StopReport {
    /// True if no child had to be killed and none leaked.
    pub fn is_clean(&self) -> bool {
        self.unclean().next().is_none()
    }

    /// The children that were killed at their budget, or leaked.
    pub fn unclean(&self) -> impl Iterator<Item = &ChildStop> {
        self.children.iter().filter(|child| matches!(child.outcome, StopOutcome::Killed | StopOutcome::Leaked))
    }
}

pub(crate) fn as_millis<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
