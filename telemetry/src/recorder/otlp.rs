//! A trace as OTLP, which any collector takes.

use super::Recorder;
use super::packed::Packed;
use opentelemetry::trace::TraceId;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::trace::SpanData;

impl Recorder {
    /// What is kept of a trace, as the body of a request to a collector's `/v1/traces`, in JSON. None if nothing is.
    pub fn otlp(&self, id: TraceId) -> Option<String> {
        let (_, spans) = self.shards().trace(id)?;
        let spans = spans.iter().filter_map(Packed::read).map(SpanData::from).collect();
        let resource = self.0.resource.get().map(ResourceAttributesWithSchema::from).unwrap_or_default();
        let request = ExportTraceServiceRequest { resource_spans: group_spans_by_resource_and_scope(spans, &resource) };
        // Plain data: it can always be written.
        serde_json::to_string(&request).ok()
    }
}
