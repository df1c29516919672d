//! Why a message was not delivered, or a call not answered.

use std::{fmt, time::Duration};

/// Why a message was not delivered. It gives the message back.
#[derive(thiserror::Error)]
pub enum SendError<M> {
    /// The actor failed and is started again; trying after `retry_after` may work.
    #[error("the actor is restarting, retry after {retry_after:?}")]
    Restarting {
        /// Until the next start is due.
        retry_after: Duration,
        /// What was not sent.
        message: M,
    },
    /// The actor is not running and no start is due.
    #[error("the actor is down")]
    Down {
        /// What was not sent.
        message: M,
    },
    /// The mailbox is at its limit.
    #[error("the mailbox is full")]
    Full {
        /// What was not sent.
        message: M,
    },
}

/// A message need not be printable for its error to be.
impl<M> fmt::Debug for SendError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SendError({self})")
    }
}

/// Why a call has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The actor failed and is started again.
    #[error("the actor is restarting, retry after {retry_after:?}")]
    Restarting {
        /// Until the next start is due.
        retry_after: Duration,
    },
    /// The actor is not running and no start is due.
    #[error("the actor is down")]
    Down,
    /// The mailbox is at its limit.
    #[error("the mailbox is full")]
    Full,
    /// No answer within the deadline. The actor may still handle the message.
    #[error("no answer within the deadline")]
    Timeout,
    /// The actor ended, or chose not to answer, after it had taken the message; or the message was lost before that.
    #[error("the actor ended before it answered")]
    Lost,
}

impl<M> From<SendError<M>> for CallError {
    fn from(error: SendError<M>) -> Self {
        match error {
            SendError::Restarting { retry_after, .. } => Self::Restarting { retry_after },
            SendError::Down { .. } => Self::Down,
            SendError::Full { .. } => Self::Full,
        }
    }
}
