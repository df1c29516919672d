//! Until when the caller waits. Whatever works for it has no longer, and what it calls in turn has a little less, so that
//! every caller still hears the answer, or the reason, of the one it has called.
//!
//! The instant is monotonic and belongs to this process. Between processes it travels as what is left of it, in
//! milliseconds ([`super::REQUEST_TIMEOUT`]), for no two clocks agree.

use std::time::Duration;

use opentelemetry::Context;
use opentelemetry::context::FutureExt as _;
use tokio::time::Instant;

/// What is kept back, at most, for the way to the next hop and back: a tenth of what is left, and no more than this.
pub const HOP_RESERVE_MAX: Duration = Duration::from_millis(50);

/// The least that is kept back, and the least that is worth a call.
const SMALLEST: Duration = Duration::from_millis(1);

/// Nothing is left of the caller's time: whatever is begun now would be answered to nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nothing is left of the caller's time")]
pub struct OutOfTime;

/// The deadline in force, as a value of the OpenTelemetry context.
#[derive(Debug, Clone, Copy)]
struct Deadline(Instant);

/// Until when the caller waits, if anybody does.
pub fn deadline() -> Option<Instant> {
    Context::map_current(of)
}

/// What is left until the deadline: zero when it has passed, `None` when there is none.
pub fn remaining() -> Option<Duration> {
    deadline().map(|deadline| deadline.saturating_duration_since(Instant::now()))
}

/// What a call to somebody else may take: `own`, its usual limit, but always less than its caller has left.
///
/// # Errors
/// [`OutOfTime`] when nothing is left: the call need not begin.
pub fn budget(own: Duration) -> Result<Duration, OutOfTime> {
    match remaining() {
        None => Ok(own),
        Some(left) => less_reserve(left).map(|left| left.min(own)).ok_or(OutOfTime),
    }
}

/// Runs `future` with a deadline in force, or with the one there is if that is earlier. It is told, not enforced: who
/// gives a deadline also stops waiting at it.
pub fn with_deadline<F: Future>(deadline: Instant, future: F) -> impl Future<Output = F::Output> {
    let context = Context::map_current(|current| tightened(current, deadline));
    future.with_context(context)
}

pub(super) fn of(context: &Context) -> Option<Instant> {
    context.get::<Deadline>().map(|deadline| deadline.0)
}

/// `context` with this deadline, unless it has an earlier one.
pub(super) fn tightened(context: &Context, deadline: Instant) -> Context {
    context.with_value(Deadline(of(context).map_or(deadline, |other| other.min(deadline))))
}

/// What the next hop may have of `left`. `None` if that is too little to be worth a call.
pub(super) fn less_reserve(left: Duration) -> Option<Duration> {
    let reserve = (left / 10).clamp(SMALLEST, HOP_RESERVE_MAX);
    left.checked_sub(reserve).filter(|rest| *rest >= SMALLEST)
}

#[cfg(test)]
mod tests {
    use super::super::{TraceContext, as_child, as_follower};
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn span() -> tracing::Span {
        tracing::info_span!(parent: None, "below")
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_deadline_a_call_has_its_own_time() {
        assert_eq!((deadline(), remaining(), budget(SECOND)), (None, None, Ok(SECOND)));
    }

    #[tokio::test(start_paused = true)]
    async fn each_hop_has_less_time_than_its_caller_and_never_more_than_its_own() {
        let until = Instant::now() + SECOND;
        with_deadline(until, async {
            assert_eq!((deadline(), remaining()), (Some(until), Some(SECOND)));
            assert_eq!(budget(SECOND * 5), Ok(SECOND - HOP_RESERVE_MAX));
            assert_eq!(budget(Duration::from_millis(10)), Ok(Duration::from_millis(10)));
            tokio::time::advance(Duration::from_millis(900)).await;
            assert_eq!(
                budget(SECOND),
                Ok(Duration::from_millis(90)),
                "a tenth of the 100 ms that are left is kept back"
            );
        })
        .await;
        assert_eq!(deadline(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn with_nothing_left_a_call_need_not_begin() {
        with_deadline(Instant::now() + Duration::from_millis(1), async {
            assert_eq!(budget(SECOND), Err(OutOfTime));
            tokio::time::advance(SECOND).await;
            assert_eq!((remaining(), budget(SECOND)), (Some(Duration::ZERO), Err(OutOfTime)));
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_within_another_can_only_be_earlier() {
        let (early, late) = (Instant::now() + SECOND, Instant::now() + SECOND * 2);
        with_deadline(early, with_deadline(late, async {})).await;
        let inner = with_deadline(early, async { with_deadline(late, async { deadline() }).await }).await;
        assert_eq!(inner, Some(early));
        let inner = with_deadline(late, async { with_deadline(early, async { deadline() }).await }).await;
        assert_eq!(inner, Some(early));
    }

    #[tokio::test(start_paused = true)]
    async fn a_child_has_the_deadline_of_its_caller_and_a_follower_has_none() {
        let until = Instant::now() + SECOND;
        let sent = with_deadline(until, async { TraceContext::current() }).await;
        assert_eq!(as_child(span(), &sent, async { deadline() }).await, Some(until));
        assert_eq!(as_follower(span(), &sent, async { deadline() }).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_is_never_stored() {
        let until = Instant::now() + SECOND;
        let sent = with_deadline(until, async { TraceContext::current() }).await;
        assert_eq!(serde_json::to_string(&sent).unwrap(), "{}");
    }
}
