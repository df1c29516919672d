//! What becomes of the messages that no incarnation will take any more.

use std::{fmt, sync::Arc};

use telemetry::panic::{PanicSite, Policy, catch_sync};

use crate::{Exit, path::first_of};

telemetry::labels! {
    /// Whose messages were lost, and why.
    pub struct Loss<'a> { actor: &'a str, reason: LossReason }
}

telemetry::label_values! { LossReason, |reason: &LossReason| reason.as_str(), LossReason::ALL.map(LossReason::as_str) }

telemetry::declare_metrics! {
    /// Messages that an address had accepted and that were never handled.
    pub static LOST: Counter<Loss> = ("actor.messages.lost", "{message}");
}

/// Messages that an [`Address`](crate::Address) had accepted and that were never handled. What `try_send` gives back is
/// none: the sender has it.
pub enum DeadLetter<M> {
    /// It waited in a kept mailbox when the actor went down.
    Undelivered {
        /// What was not delivered.
        message: M,
        /// Why the actor went down.
        reason: LossReason,
    },
    /// They were in ractor's own mailbox when an incarnation ended, and are gone: of these only the number is known.
    Lost {
        /// How many.
        count: usize,
        /// How the incarnation ended.
        reason: LossReason,
    },
}

/// A message need not be printable for its letter to be.
impl<M> fmt::Debug for DeadLetter<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Undelivered { reason, .. } => write!(f, "Undelivered({reason:?})"),
            Self::Lost { count, reason } => write!(f, "Lost({count}, {reason:?})"),
        }
    }
}

/// Why messages were not handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossReason {
    /// The actor was asked to stop: by an operator, with its group or with its supervisor.
    Stopped,
    /// The actor came to its end by itself, or declined to start.
    Finished,
    /// The actor failed or was killed. What waited in a kept mailbox has this reason only if it is not started again.
    Failed,
}

impl LossReason {
    const ALL: [Self; 3] = [Self::Stopped, Self::Finished, Self::Failed];

    /// One word for metrics: `stopped`, `finished` or `failed`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Finished => "finished",
            Self::Failed => "failed",
        }
    }
}

impl From<&Exit> for LossReason {
    fn from(exit: &Exit) -> Self {
        match exit {
            Exit::Shutdown => Self::Stopped,
            exit if exit.is_orderly() => Self::Finished,
            _ => Self::Failed,
        }
    }
}

type Hook<M> = dyn Fn(DeadLetter<M>) + Send + Sync;

/// Counts the dead letters of one address and hands them to whoever asked for them.
pub(crate) struct DeadLetters<M> {
    hook: Option<Arc<Hook<M>>>,
}

impl<M> DeadLetters<M> {
    pub(crate) fn none() -> Self {
        Self { hook: None }
    }

    pub(crate) fn to(hook: impl Fn(DeadLetter<M>) + Send + Sync + 'static) -> Self {
        Self { hook: Some(Arc::new(hook)) }
    }

    /// Messages that were still queued, the oldest first.
    pub(crate) fn undelivered(&self, actor: &str, messages: impl ExactSizeIterator<Item = M>, reason: LossReason) {
        count(actor, messages.len(), reason);
        for message in messages {
            self.post(actor, DeadLetter::Undelivered { message, reason });
        }
    }

    /// Messages of which nothing is left.
    pub(crate) fn lost(&self, actor: &str, count: usize, reason: LossReason) {
        if count > 0 {
            self::count(actor, count, reason);
            self.post(actor, DeadLetter::Lost { count, reason });
        }
    }

    /// The hook, and the destructor of a message, are foreign code: their panic is theirs alone.
    fn post(&self, actor: &str, letter: DeadLetter<M>) {
        let posted = catch_sync(|| match &self.hook {
            Some(hook) => hook(letter),
            None => drop(letter),
        });
        if let Err(captured) = posted {
            let site = PanicSite {
                component: first_of(actor),
                actor,
                policy: Policy::KeepRunning,
                phase: "dead_letter",
                message_type: Some(std::any::type_name::<M>()),
                incarnation: 0,
                tenant: None,
                detail: Vec::new(),
            };
            let incident = telemetry::panic::record(site, captured);
            telemetry::incidents::amend(incident, "the letter is lost, all else goes on");
        }
    }
}

impl<M> Clone for DeadLetters<M> {
    fn clone(&self) -> Self {
        Self { hook: self.hook.clone() }
    }
}

impl<M> fmt::Debug for DeadLetters<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetters").field("hook", &self.hook.is_some()).finish()
    }
}

/// Exports the counters of an address as 0.
pub(crate) fn bear_counters(actor: &str) {
    for reason in LossReason::ALL {
        LOST.born(Loss { actor, reason });
    }
}

fn count(actor: &str, messages: usize, reason: LossReason) {
    if messages > 0 {
        LOST.add(u64::try_from(messages).unwrap_or(u64::MAX), Loss { actor, reason });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_an_incarnation_says_why_its_messages_are_lost() {
        let ends = [Exit::Shutdown, Exit::Normal, Exit::ShutdownWith("done".to_owned()), Exit::Killed];
        let reasons = ends.map(|exit| LossReason::from(&exit).as_str());
        assert_eq!(reasons, ["stopped", "finished", "finished", "failed"]);
    }

    #[test]
    fn nothing_lost_is_no_letter() {
        let (sender, received) = std::sync::mpsc::channel();
        let letters = DeadLetters::<()>::to(move |letter| drop(sender.send(format!("{letter:?}"))));
        letters.lost("a", 0, LossReason::Stopped);
        letters.undelivered("a", [].into_iter(), LossReason::Stopped);
        letters.lost("a", 2, LossReason::Failed);
        assert_eq!(received.try_iter().collect::<Vec<_>>(), ["Lost(2, Failed)"]);
    }
}
