//! What every span and every log record is given on its way out, wherever it was made.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use opentelemetry::logs::LogRecord as _;
use opentelemetry::trace::Span as _;
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogProcessor, SdkLogRecord};
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};

use crate::context::{REQUEST_ID_FIELD, RequestId};
use crate::events::HappenedAt;

/// Each bears the id of the request that it all began with, so that one search finds the whole story. A log record is
/// given its time as well, if there is one in force that of what [happened](HappenedAt): the bridge from `tracing` leaves it
/// empty, and viewers then show 1970.
#[derive(Debug)]
pub(crate) struct Stamps;

/// The id of the request in force.
pub(super) fn request_id() -> Option<RequestId> {
    Context::map_current(|context| context.get::<RequestId>().cloned())
}

/// When what is logged now happened, if that is not just now.
pub(super) fn happened_at() -> Option<Timestamp> {
    Context::map_current(|context| context.get::<HappenedAt>().map(|happened| happened.0))
}

impl SpanProcessor for Stamps {
    fn on_start(&self, span: &mut Span, context: &Context) {
        if let Some(id) = context.get::<RequestId>() {
            span.set_attribute(KeyValue::new(REQUEST_ID_FIELD, id.to_string()));
        }
    }

    fn on_end(&self, _: SpanData) {}

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

impl LogProcessor for Stamps {
    fn emit(&self, record: &mut SdkLogRecord, _: &InstrumentationScope) {
        let known = record.timestamp().or(happened_at().map(SystemTime::from));
        if let Some(time) = known.or(record.observed_timestamp()) {
            record.set_timestamp(time);
        }
        if let Some(id) = request_id() {
            record.add_attribute(REQUEST_ID_FIELD, id.to_string());
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::{TraceContext, as_child, as_follower};
    use crate::testing::{Recording, attribute};

    #[test]
    fn every_span_and_log_record_of_a_request_bears_its_id_and_so_does_what_follows() {
        let recording = Recording::new();
        let request = TraceContext::default().with_request_id(RequestId::parse("order-7"));
        let serving = async {
            let row = tracing::info_span!("enqueue").in_scope(TraceContext::current);
            as_follower(tracing::info_span!(parent: None, "job"), &row, async { tracing::info!("done") }).await;
        };
        recording.run(|| {
            let served = as_child(tracing::info_span!("request"), &request, serving);
            futures_util::FutureExt::now_or_never(served).unwrap();
        });
        for name in ["request", "enqueue", "job"] {
            let attributes = recording.span(name).attributes;
            assert_eq!(attribute(&attributes, REQUEST_ID_FIELD).as_deref(), Some("order-7"), "{name}");
        }
        assert_eq!(recording.log_field(REQUEST_ID_FIELD).as_deref(), Some("order-7"));
    }

    #[test]
    fn what_belongs_to_no_request_bears_no_id() {
        let recording = Recording::new();
        recording.run(|| tracing::info_span!("sweep").in_scope(|| tracing::info!("swept")));
        assert_eq!(attribute(&recording.span("sweep").attributes, REQUEST_ID_FIELD), None);
        assert_eq!(recording.log_field(REQUEST_ID_FIELD), None);
    }
}
