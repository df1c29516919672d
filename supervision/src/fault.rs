//! The places in a child's life where the conformance battery looks on, or brings about a fault. Without the feature
//! `battery` each of them is nothing at all.

use std::task::{Context, Poll};

use crate::ChildContext;

/// Panics here if the battery wants it.
#[inline]
pub(crate) fn strike(context: &ChildContext, phase: &'static str) {
    #[cfg(feature = "battery")]
    if let Some(probe) = context.probe() {
        probe.strike(phase);
    }
    let _ = (context, phase);
}

/// Is pending here while the battery wants it.
#[inline]
pub(crate) fn poll_hold(context: &ChildContext, phase: &'static str, waker: &Context<'_>) -> Poll<()> {
    #[cfg(feature = "battery")]
    if let Some(probe) = context.probe() {
        return probe.poll_hold(phase, context.incarnation(), waker);
    }
    let _ = (context, phase, waker);
    Poll::Ready(())
}

/// Waits here for as long as the battery wants it.
#[inline]
pub(crate) async fn hold(context: &ChildContext, phase: &'static str) {
    std::future::poll_fn(|waker| poll_hold(context, phase, waker)).await;
}

/// A panic of this child was recorded.
#[inline]
pub(crate) fn seen(context: &ChildContext, phase: &'static str, message: &str) {
    #[cfg(feature = "battery")]
    if let Some(probe) = context.probe() {
        probe.seen(phase, message);
    }
    let _ = (context, phase, message);
}

/// Lives as long as the state of one incarnation, or the future of a task.
pub(crate) struct Life {
    #[cfg(feature = "battery")]
    probe: Option<std::sync::Arc<crate::battery::Probe>>,
}

impl Life {
    #[inline]
    pub(crate) fn begin(context: &ChildContext) -> Self {
        let _ = context;
        Self {
            #[cfg(feature = "battery")]
            probe: context.probe().inspect(|probe| probe.life_begins()).cloned(),
        }
    }
}

impl Drop for Life {
    #[inline]
    fn drop(&mut self) {
        #[cfg(feature = "battery")]
        if let Some(probe) = &self.probe {
            probe.life_ends();
        }
    }
}
