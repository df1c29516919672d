//! Every trace is recorded, whatever the sampler says; what it says decides what is exported.

use opentelemetry::trace::{Link, SpanKind, TraceId};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SamplingDecision, SamplingResult, ShouldSample};

/// As the sampler inside, but that nothing is dropped: what it drops is recorded, and not sampled.
#[derive(Debug, Clone)]
pub(crate) struct Recorded<S>(pub(crate) S);

impl<S: ShouldSample + Clone + 'static> ShouldSample for Recorded<S> {
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
        if result.decision == SamplingDecision::Drop {
            result.decision = SamplingDecision::RecordOnly;
        }
        result
    }
}
