//! A story is kept whole or not at all, whatever share of stories is kept; and what panics outside of any is always kept.

use crate::context::is_follower;
use opentelemetry::trace::{Link, SpanKind, TraceId};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SamplingDecision, SamplingResult, ShouldSample};

/// For roots: one that follows from another trace is kept if that one is, here or in whichever process it was; any other as
/// the sampler inside says, but for the span that a panic gets which has none.
#[derive(Debug, Clone)]
pub(super) struct Follows<S>(pub(super) S);

impl<S: ShouldSample + Clone + 'static> ShouldSample for Follows<S> {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let mut result = self.0.should_sample(parent, trace_id, name, kind, attributes, links);
        if !links.is_empty() && parent.is_some_and(is_follower) {
            result.decision = match links.iter().any(|link| link.span_context.is_sampled()) {
                true => SamplingDecision::RecordAndSample,
                false => SamplingDecision::Drop,
            };
        } else if name.starts_with("panic.") {
            result.decision = SamplingDecision::RecordAndSample;
        }
        result
    }
}
