//! What operators are answered.

use std::{any::Any, fmt};

use crate::{Exit, supervisor::Answer};

/// What became of a start that somebody asked for.
#[derive(Debug, PartialEq)]
pub enum StartOutcome {
    /// It serves.
    Started {
        /// Which of its incarnations.
        incarnation: u64,
        /// What it handed to whoever asked for the start, see [`ChildContext::hand_over`](crate::ChildContext::hand_over).
        handed_over: HandedOver,
    },
    /// It declined to start, which is not an error. Its spec stays, unless it is temporary.
    Ignored,
}

/// A value of the child's own choosing, or none.
#[derive(Default)]
pub struct HandedOver(pub(crate) Option<Box<dyn Any + Send>>);

impl HandedOver {
    /// The value, if there is one of this type.
    pub fn take<T: 'static>(self) -> Option<T> {
        let mut this = self;
        this.0.take().and_then(|value| value.downcast().ok()).map(|value| *value)
    }
}

/// Where nobody takes the value the supervisor drops it, which must not suffer from what that does.
impl Drop for HandedOver {
    fn drop(&mut self) {
        let Some(value) = self.0.take() else { return };
        if let Err(captured) = telemetry::panic::catch_sync(|| drop(value)) {
            crate::guard::record_unowned("hand_over", captured);
        }
    }
}

/// Values of unknown types are equal if there are none.
impl PartialEq for HandedOver {
    fn eq(&self, other: &Self) -> bool {
        self.0.is_none() && other.0.is_none()
    }
}

impl fmt::Debug for HandedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "HandedOver(..)" } else { "HandedOver(nothing)" })
    }
}

/// Every operation that starts something says what came of it.
impl From<Answer> for StartOutcome {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Started { incarnation, handed_over } => Self::Started { incarnation, handed_over },
            Answer::Done | Answer::Counted(_) => Self::Ignored,
        }
    }
}

/// Why an operation on a child was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OperationError {
    /// There is no such child.
    #[error("there is no such child")]
    NotFound,
    /// The root itself is stopped with [`Tree::stop`](crate::Tree::stop) only.
    #[error("the root is not operated on")]
    IsRoot,
    /// The child, or a supervisor above it, is not running.
    #[error("the child is not running")]
    NotRunning,
    /// The child is running, starting or stopping.
    #[error("the child is running")]
    AlreadyRunning,
    /// The child waits for its restart, which comes by itself; [`Tree::restart`](crate::Tree::restart) brings it about now.
    #[error("the child is about to be restarted")]
    Restarting,
    /// A child of that id exists, and is not running.
    #[error("a child of that id exists")]
    AlreadyPresent,
    /// The supervisor's children come and go, and a stopped one is forgotten: see
    /// [`SupervisorSpec::forget_stopped_children`](crate::SupervisorSpec::forget_stopped_children).
    #[error("a dynamic child that ended is gone")]
    DynamicChild,
    /// An earlier incarnation still runs and cannot be ended.
    #[error("an earlier incarnation of the child leaked and still runs")]
    Leaked,
    /// The supervisor is at its limit.
    #[error("the supervisor has its {max_children} children")]
    TooManyChildren {
        /// The limit.
        max_children: usize,
    },
    /// The spec contradicts itself or its supervisor.
    #[error("the spec is not sound: {reason}")]
    BadSpec {
        /// How.
        reason: String,
    },
    /// The child did not start; it stays down.
    #[error("the child {exit}")]
    StartFailed {
        /// Why.
        exit: Exit,
    },
    /// A later operation on the same child took its place.
    #[error("a later operation took its place")]
    Superseded,
    /// Too many operations wait.
    #[error("too many operations wait")]
    Busy,
    /// It was not carried out in time; it may still be.
    #[error("the operation is not complete after its deadline")]
    Timeout,
    /// The tree, or the part of it, is stopping.
    #[error("the supervisor is stopping")]
    Stopping,
}
