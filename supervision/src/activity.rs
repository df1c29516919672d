//! What a child is doing right now: the message in hand, and whether its callback has yielded.
//!
//! All of it is written by one thread at a time, with plain stores, because it lies on the path of every message.

use std::{
    future::Future,
    num::NonZeroU64,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use serde::Serialize;
use tokio::time::Instant;

use crate::{
    heartbeat::{instant_of, stamp},
    node::millis,
};

/// What one incarnation is doing. The wrapper writes it, everyone may read it.
#[derive(Debug)]
pub(crate) struct Activity {
    epoch: Instant,
    message_type: &'static str,
    /// For how long one message may be in hand.
    message_limit: Option<Duration>,
    /// Nanoseconds since the epoch, plus one; 0 means never.
    last_message: AtomicU64,
    /// Nanoseconds since the epoch, plus one; 0 means idle.
    busy_since: AtomicU64,
    /// Counts where polls begin and end: odd within one. The same odd number twice means that it has not yielded between.
    polls: AtomicU64,
}

/// When a message was taken in hand. Not zero, so that it and its absence take one word.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entered(NonZeroU64);

/// One message that is being handled right now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Busy {
    /// The actor's message type.
    pub message_type: &'static str,
    /// For how long, in milliseconds.
    pub for_ms: u64,
}

impl Activity {
    pub(crate) fn new(epoch: Instant, message_type: &'static str, message_limit: Option<Duration>) -> Self {
        let [last_message, busy_since, polls] = [const { AtomicU64::new(0) }; 3];
        Self { epoch, message_type, message_limit, last_message, busy_since, polls }
    }

    /// A message is taken in hand.
    #[inline]
    pub(crate) fn enter(&self) -> Entered {
        let now = stamp(self.epoch);
        self.busy_since.store(now.get(), Relaxed);
        Entered(now)
    }

    /// The message is handled. Returns how long it took, in seconds.
    #[inline]
    pub(crate) fn leave(&self, entered: Entered) -> f64 {
        let now = stamp(self.epoch);
        self.busy_since.store(0, Relaxed);
        self.last_message.store(now.get(), Relaxed);
        now.get().saturating_sub(entered.0.get()) as f64 * 1e-9
    }

    /// The callback has the thread, until [`Activity::yielded`]. Within one poll it may be said twice: where a callback makes
    /// its future is a part of the first poll.
    #[inline]
    pub(crate) fn polling(&self) {
        let polls = self.polls.load(Relaxed);
        if polls.is_multiple_of(2) {
            self.polls.store(polls.wrapping_add(1), Relaxed);
        }
    }

    /// The callback, which was [polling](Activity::polling), has given the thread back.
    #[inline]
    pub(crate) fn yielded(&self) {
        self.polls.store(self.polls.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// Odd while the callback has the thread.
    pub(crate) fn polls(&self) -> u64 {
        self.polls.load(Relaxed)
    }

    pub(crate) fn is_polled(&self) -> bool {
        self.polls() % 2 == 1
    }

    pub(crate) fn message_type(&self) -> &'static str {
        self.message_type
    }

    pub(crate) fn message_limit(&self) -> Option<Duration> {
        self.message_limit
    }

    /// When the last message was finished.
    pub(crate) fn last_message(&self) -> Option<Instant> {
        instant_of(self.epoch, self.last_message.load(Relaxed))
    }

    /// The message in hand.
    pub(crate) fn busy(&self) -> Option<Busy> {
        let since = instant_of(self.epoch, self.busy_since.load(Relaxed))?;
        Some(Busy { message_type: self.message_type, for_ms: millis(since.elapsed()) })
    }
}

pin_project! {
    /// A future whose polls are shown, if there is an activity to show them in.
    pub(crate) struct Shown<F> {
        activity: Option<Arc<Activity>>,
        #[pin]
        work: F,
    }
}

/// Shows the polls of `work`, which must not panic: panics are caught within.
pub(crate) fn shown<F: Future>(activity: Option<Arc<Activity>>, work: F) -> Shown<F> {
    Shown { activity, work }
}

impl<F: Future> Future for Shown<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        if let Some(activity) = this.activity {
            activity.polling();
        }
        let polled = this.work.poll(context);
        if let Some(activity) = this.activity {
            activity.yielded();
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_callback_is_seen_to_be_polled_within_a_poll_only_and_each_poll_is_another() {
        let activity = Arc::new(Activity::new(Instant::now(), "Msg", None));
        let mut work = Box::pin(shown(Some(Arc::clone(&activity)), async {
            let first = (activity.is_polled(), activity.polls());
            tokio::task::yield_now().await;
            [first, (activity.is_polled(), activity.polls())]
        }));
        assert!(futures_util::poll!(&mut work).is_pending() && !activity.is_polled());
        assert_eq!(work.await, [(true, 1), (true, 3)]);
        assert!(!activity.is_polled());
    }

    #[test]
    fn what_makes_the_future_is_a_part_of_the_first_poll() {
        let activity = Activity::new(Instant::now(), "Msg", None);
        activity.polling();
        activity.polling();
        assert_eq!(activity.polls(), 1);
        activity.yielded();
        assert_eq!(activity.polls(), 2);
    }
}
