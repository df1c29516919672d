//! What there is to check.

use std::fmt;

use crate::Kind;

/// What is checked. After each, also what [the battery](super) looks at when it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// It starts, answers, and stops within its budget.
    StartsAndStops,
    /// The order to stop comes before its start begins.
    StoppedBeforeItsStart,
    /// The order comes in `pre_start`, when the state is made (a task that says when it is ready: before it is).
    StoppedWhileItStarts,
    /// Two stops of the tree and one by hand come at once, and one when all is over; all mean the same stop.
    StoppedTwice,
    /// It is stopped by hand, forgotten by the heartbeats, and started again.
    StoppedByHandAndStarted,
    /// It is killed by somebody else, and started again.
    Killed,
    /// Five kills in a row leave nothing behind either.
    KilledAgainAndAgain,
    /// It panics in `pre_start` (a task: in its first poll) at the first start, which fails with that panic.
    PanicAtFirstStart,
    /// It panics in `pre_start` (a task: in its first poll) of a restart, and is tried again.
    PanicAtRestart,
    /// It panics in `post_start`, and is started again.
    PanicInPostStart,
    /// It panics in `handle`, and is started again.
    PanicInHandle,
    /// It panics in `handle_supervisor_evt`, and is started again.
    PanicInHandleSupervisorEvt,
    /// It panics in `post_stop` of a restart by hand, and is started again.
    PanicInPostStop,
    /// A task panics in the middle of its work, and is started again.
    PanicInTask,
    /// It hangs in a message (a task: anywhere), is killed at its budget and reported.
    HangsAtItsStop,
    /// It hangs in `post_stop`, is killed at its budget and reported.
    HangsInPostStop,
    /// More messages than its mailbox holds: all further ones come back as full, it handles the others and serves.
    Flooded,
}

impl Check {
    /// All there are.
    pub const ALL: [Self; 17] = [
        Self::StartsAndStops,
        Self::StoppedBeforeItsStart,
        Self::StoppedWhileItStarts,
        Self::StoppedTwice,
        Self::StoppedByHandAndStarted,
        Self::Killed,
        Self::KilledAgainAndAgain,
        Self::PanicAtFirstStart,
        Self::PanicAtRestart,
        Self::PanicInPostStart,
        Self::PanicInHandle,
        Self::PanicInHandleSupervisorEvt,
        Self::PanicInPostStop,
        Self::PanicInTask,
        Self::HangsAtItsStop,
        Self::HangsInPostStop,
        Self::Flooded,
    ];

    /// In words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::StartsAndStops => "starts and stops",
            Self::StoppedBeforeItsStart => "stopped before its start",
            Self::StoppedWhileItStarts => "stopped while it starts",
            Self::StoppedTwice => "stopped twice at once",
            Self::StoppedByHandAndStarted => "stopped by hand and started again",
            Self::Killed => "killed",
            Self::KilledAgainAndAgain => "killed again and again",
            Self::PanicAtFirstStart => "panic at its first start",
            Self::PanicAtRestart => "panic at a restart",
            Self::PanicInPostStart => "panic in post_start",
            Self::PanicInHandle => "panic in handle",
            Self::PanicInHandleSupervisorEvt => "panic in handle_supervisor_evt",
            Self::PanicInPostStop => "panic in post_stop",
            Self::PanicInTask => "panic in a task",
            Self::HangsAtItsStop => "hangs at its stop",
            Self::HangsInPostStop => "hangs in post_stop",
            Self::Flooded => "flooded",
        }
    }

    /// Of which kind of child it is, if not of all.
    pub(super) fn only_for(self) -> Option<Kind> {
        match self {
            Self::PanicInPostStart
            | Self::PanicInHandle
            | Self::PanicInHandleSupervisorEvt
            | Self::PanicInPostStop
            | Self::HangsInPostStop
            | Self::Flooded => Some(Kind::Actor),
            Self::PanicInTask => Some(Kind::Task),
            _ => None,
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
