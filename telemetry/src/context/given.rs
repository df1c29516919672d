//! Ids that a root is given, rather than random ones.
//!
//! What was told of a span that is lost with its process (its children, its log records) is found by whoever can tell its ids
//! from what it was about. Nothing has to be stored for that.

use super::{TraceContext, as_follower};
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use std::cell::Cell;
use tracing::Span;

/// The ids of one root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ids {
    trace: TraceId,
    span: SpanId,
}

impl Ids {
    /// From two parts of a hash of what the root is about: nothing else may have the same.
    pub fn of(trace: [u8; 16], span: [u8; 8]) -> Self {
        Self { trace: TraceId::from_bytes(trace), span: SpanId::from_bytes(span) }
    }

    /// The root that has them, as it looks to whoever links to it: kept if `other` is.
    pub fn beside(self, other: &TraceContext) -> TraceContext {
        let is_kept = other.span.as_ref().is_none_or(SpanContext::is_sampled);
        let flags = TraceFlags::default().with_sampled(is_kept);
        let span = SpanContext::new(self.trace, self.span, flags, true, TraceState::default());
        TraceContext { span: Some(span), ..TraceContext::default() }
    }
}

/// As [`as_follower`], and the root has these ids.
pub fn as_follower_with<F: Future>(
    span: Span,
    ids: Ids,
    origin: &TraceContext,
    future: F,
) -> impl Future<Output = F::Output> {
    // It is started in there, unless it is filtered out.
    GIVEN.set((Some(ids.trace), Some(ids.span)));
    let future = as_follower(span, origin, future);
    GIVEN.set((None, None));
    future
}

thread_local! {
    /// For the root that is started next on this thread.
    static GIVEN: Cell<(Option<TraceId>, Option<SpanId>)> = const { Cell::new((None, None)) };
}

#[cfg(feature = "export")]
mod generator {
    use super::GIVEN;
    use opentelemetry::trace::{SpanId, TraceId};
    use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};

    /// Makes random ids, unless some are given.
    #[derive(Debug, Default)]
    pub(crate) struct GivenOrRandom(RandomIdGenerator);

    impl IdGenerator for GivenOrRandom {
        fn new_trace_id(&self) -> TraceId {
            let (trace, span) = GIVEN.take();
            GIVEN.set((None, span));
            trace.unwrap_or_else(|| self.0.new_trace_id())
        }

        fn new_span_id(&self) -> SpanId {
            let (trace, span) = GIVEN.take();
            GIVEN.set((trace, None));
            span.unwrap_or_else(|| self.0.new_span_id())
        }
    }
}

#[cfg(feature = "export")]
pub(crate) use generator::GivenOrRandom;

#[cfg(all(test, feature = "export"))]
mod tests {
    use super::*;
    use crate::testing::Recording;
    use futures_util::FutureExt as _;
    use tracing::info_span;

    #[test]
    fn a_root_has_the_ids_that_it_is_given_and_what_comes_next_has_its_own() {
        let recording = Recording::new();
        let ids = Ids::of([7; 16], [9; 8]);
        recording.run(|| {
            let work = async { info_span!("below").in_scope(|| ()) };
            let filtered = tracing::trace_span!(parent: None, "filtered");
            as_follower_with(filtered, ids, &TraceContext::default(), async {}).now_or_never();
            info_span!("between").in_scope(|| ());
            as_follower_with(info_span!(parent: None, "given"), ids, &TraceContext::default(), work).now_or_never();
            info_span!("after").in_scope(|| ());
        });
        let [given, below] = ["given", "below"].map(|name| recording.span(name));
        let told = ids.beside(&TraceContext::default());
        assert_eq!(told.span.as_ref().map(SpanContext::trace_id), Some(given.span_context.trace_id()));
        assert_eq!(told.span_id(), Some(given.span_context.span_id().to_string()));
        assert_eq!(below.span_context.trace_id(), given.span_context.trace_id());
        assert_ne!(below.span_context.span_id(), given.span_context.span_id());
        for other in ["between", "after"] {
            assert_ne!(recording.span(other).span_context.trace_id(), given.span_context.trace_id(), "{other}");
        }
    }
}
