//! What the battery found.

use std::fmt;

use super::Check;

/// Every check with its outcome, in the order in which they were carried out.
#[derive(Clone, Debug)]
pub struct Report {
    /// All checks there are.
    pub checks: Vec<CheckReport>,
}

/// One check.
#[derive(Clone, Debug)]
pub struct CheckReport {
    /// Which.
    pub check: Check,
    /// How it went.
    pub outcome: Outcome,
}

/// How a check went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The child did as it should.
    Passed,
    /// It did not, and how.
    Failed(String),
    /// The check is not for this child, and why.
    Skipped(String),
}

/// Why a check did not pass.
#[derive(Debug)]
pub(super) enum Trouble {
    Start(String),
    Failed(String),
    Skipped(String),
}

/// How the failure of a child that does not even start begins.
const NO_START: &str = "it does not start: ";

impl Report {
    /// True if no check failed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.failed().next().is_none()
    }

    /// The checks that failed.
    pub fn failed(&self) -> impl Iterator<Item = &CheckReport> {
        self.checks.iter().filter(|check| matches!(check.outcome, Outcome::Failed(_)))
    }

    /// The checks that were skipped.
    pub fn skipped(&self) -> impl Iterator<Item = &CheckReport> {
        self.checks.iter().filter(|check| matches!(check.outcome, Outcome::Skipped(_)))
    }
}

impl Outcome {
    pub(super) fn is_start_failure(&self) -> bool {
        matches!(self, Self::Failed(why) if why.starts_with(NO_START))
    }
}

impl From<Result<(), Trouble>> for Outcome {
    fn from(verdict: Result<(), Trouble>) -> Self {
        match verdict {
            Ok(()) => Self::Passed,
            Err(Trouble::Start(why)) => Self::Failed(format!("{NO_START}{why}")),
            Err(Trouble::Failed(why)) => Self::Failed(why),
            Err(Trouble::Skipped(why)) => Self::Skipped(why),
        }
    }
}

impl From<String> for Trouble {
    fn from(why: String) -> Self {
        Self::Failed(why)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (failed, skipped) = (self.failed().count(), self.skipped().count());
        write!(f, "{failed} of {} checks failed, {skipped} were skipped", self.checks.len())?;
        for CheckReport { check, outcome } in &self.checks {
            match outcome {
                Outcome::Passed => {}
                Outcome::Failed(why) => write!(f, "\n  FAILED   {check}: {why}")?,
                Outcome::Skipped(why) => write!(f, "\n  skipped  {check}: {why}")?,
            }
        }
        Ok(())
    }
}
