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
#[inline]
pub fn catch<F: Future>(future: F) -> Catch<F> {
    Catch { work: Work::Running { future } }
}

/// As [`catch`], for a future that is still to be made: a hand-written `fn` may panic before it returns its future. `make` is
/// called at once, so that what it captures is not carried about.
///
/// # Errors
/// `make` or the future panicked.
#[inline]
pub fn catch_with<F: Future>(make: impl FnOnce() -> F) -> Catch<F> {
    match catch_sync(make) {
        Ok(future) => catch(future),
        Err(captured) => captured.into(),
    }
}

pin_project! {
    /// The future that [`catch`] and [`catch_with`] return. It is on the path of every message, so it is a plain wrapper.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct Catch<F> {
        #[pin]
        work: Work<F>,
    }
}

pin_project! {
    #[derive(Debug)]
    #[project = WorkProjection]
    enum Work<F> {
        Running { #[pin] future: F },
        Unmade { captured: Option<CapturedPanic> },
        Over,
    }
}

/// A future that could not be made.
impl<F> From<CapturedPanic> for Catch<F> {
    fn from(captured: CapturedPanic) -> Self {
        Catch { work: Work::Unmade { captured: Some(captured) } }
    }
}

impl<F: Future> Future for Catch<F> {
    type Output = Result<F::Output, CapturedPanic>;

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut work = self.project().work;
        let future = match work.as_mut().project() {
            WorkProjection::Running { future } => future,
            WorkProjection::Unmade { captured } => {
                return captured.take().map_or(Poll::Pending, |it| Poll::Ready(Err(it)));
            }
            WorkProjection::Over => return Poll::Pending,
        };
        let local = 0;
        let scope = Scope::enter(&local);
        match catch_unwind(AssertUnwindSafe(|| future.poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(payload) => {
                let captured = captured(&scope, payload);
                // Half broken as it is, dropping it may panic again; that second one is noted when the scope ends.
                survive_drop(|| work.set(Work::Over));
                Poll::Ready(Err(captured))
            }
        }
    }
}

/// Runs `work` and catches a panic in it.
///
/// # Errors
/// The work panicked.
#[inline]
pub fn catch_sync<T>(work: impl FnOnce() -> T) -> Result<T, CapturedPanic> {
    let local = 0;
    let scope = Scope::enter(&local);
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| captured(&scope, payload))
}

#[cold]
fn captured(scope: &Scope, payload: Box<dyn Any + Send>) -> CapturedPanic {
    let message = message(&*payload);
    // Before the payload is dropped: that is foreign code too, and what it says when it panics is another capture.
    let captured = scope.take(&message).unwrap_or_else(|| CapturedPanic::here(message));
    survive_drop(|| drop(payload));
    captured
}

/// Foreign code is dropped and may panic; so may what it panics with, which is therefore never dropped.
fn survive_drop(drop: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(drop)) {
        std::mem::forget(payload);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backtrace_ends_where_the_panic_is_caught_however_deep_that_is() {
        fn caught_below(callers: usize) -> CapturedPanic {
            match callers {
                0 => catch_sync(|| panic!("deep down")).unwrap_err(),
                _ => std::hint::black_box(caught_below(callers - 1)),
            }
        }
        super::super::install_hook();
        let (shallow, deep) = (caught_below(1), caught_below(60));
        assert!(!shallow.backtrace.is_empty());
        assert_eq!(shallow.backtrace.len(), deep.backtrace.len());
    }

    #[test]
    fn a_payload_that_panics_when_it_is_dropped_costs_the_capture_nothing() {
        struct Brittle(u32);
        impl Drop for Brittle {
            fn drop(&mut self) {
                if let Some(left) = self.0.checked_sub(1) {
                    std::panic::panic_any(Brittle(left));
                }
            }
        }
        super::super::install_hook();
        let captured = catch_sync(|| std::panic::panic_any(Brittle(2))).unwrap_err();
        assert!(captured.location.as_deref().is_some_and(|place| place.contains("catch.rs")));
        assert!(!captured.backtrace.is_empty());
    }

    #[tokio::test]
    async fn a_future_that_could_not_be_made_is_a_panic_of_its_own() {
        let make: fn() -> std::future::Ready<()> = || panic!("not even made");
        assert_eq!(catch_with(make).await.unwrap_err().message, "not even made");
    }
}
