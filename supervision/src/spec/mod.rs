//! What a supervisor is told about its children, and the check of it before anything starts.

mod child;
mod rules;
mod supervisor;

pub use child::{ChildSpec, Kind, SpecSummary, Traced};
pub use rules::{AutoShutdown, FirstStart, GiveUpAs, GroupRestart, OnGiveUp, OnStuck, Restart, Shutdown, Strategy};
pub use supervisor::SupervisorSpec;

/// One contradiction in a spec.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("child {path:?}: {reason}")]
pub struct SpecFault {
    /// The ids down to the child, joined by dots; empty for the supervisor itself.
    pub path: String,
    /// What is wrong.
    pub reason: String,
}

impl SpecFault {
    pub(crate) fn new(path: &str, reason: impl Into<String>) -> Self {
        Self { path: path.to_owned(), reason: reason.into() }
    }

    /// All of them in one line.
    pub(crate) fn list(faults: &[Self]) -> String {
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        format!("the tree is not sound: {}", faults.join("; "))
    }

    pub(crate) fn below(&self, parent: &ChildSpec) -> Self {
        let own = self.path == parent.id || self.path.is_empty();
        let path = if own { parent.id.clone() } else { format!("{}.{}", parent.id, self.path) };
        Self { path, reason: self.reason.clone() }
    }
}
