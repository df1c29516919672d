//! Catching: every poll runs in a scope of its own, and the hook's capture is taken right after.

use super::CapturedPanic;
use super::hook::{Scope, message};
use pin_project_lite::pin_project;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

/// Runs `future` and catches a panic in any of its polls. What is left of the future is dropped before this returns, still
/// inside the scope.
///
/// Nothing is recorded here: the caller knows what the panic means and calls [`record`](super::record).
///
/// # Errors
/// The future panicked.
pub fn catch<F: Future>(future: F) -> Catch<F> {
    Catch { running: Some(future) }
}

pin_project! {
    /// The future that [`catch`] returns. It is on the path of every message, so it is a plain wrapper.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct Catch<F> {
        #[pin]
        running: Option<F>,
    }
}

impl<F: Future> Future for Catch<F> {
    type Output = Result<F::Output, CapturedPanic>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        poll(self.project().running, context)
    }
}

/// Runs `work` and catches a panic in it.
///
/// # Errors
/// The work panicked.
pub fn catch_sync<T>(work: impl FnOnce() -> T) -> Result<T, CapturedPanic> {
    let scope = Scope::enter();
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| captured(&scope, payload))
}

fn poll<F: Future>(
    mut running: Pin<&mut Option<F>>,
    context: &mut Context<'_>,
) -> Poll<Result<F::Output, CapturedPanic>> {
    let scope = Scope::enter();
    let Some(future) = running.as_mut().as_pin_mut() else {
        return Poll::Pending;
    };
    match catch_unwind(AssertUnwindSafe(|| future.poll(context))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Err(payload) => {
            let captured = captured(&scope, payload);
            // Half broken as it is, dropping it may panic again; that second one is noted when the scope ends.
            drop(catch_unwind(AssertUnwindSafe(|| running.set(None))));
            Poll::Ready(Err(captured))
        }
    }
}

fn captured(scope: &Scope, payload: Box<dyn Any + Send>) -> CapturedPanic {
    let message = message(&*payload);
    // A payload is foreign code too, and may panic when dropped.
    drop(catch_unwind(AssertUnwindSafe(|| drop(payload))));
    scope.take(&message).unwrap_or_else(|| CapturedPanic::here(message))
}
