//! What becomes of each span: stamped when it starts; when it ends, handed to whoever exports it and to the recorder.
//!
//! One processor and not three: the SDK copies a span for each processor that there is, also for one that has no use for it.

use super::stamps::Stamps;
use crate::recorder::Recorder;
use opentelemetry::Context;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use std::time::Duration;

/// With neither of the two it only stamps.
#[derive(Debug)]
pub(crate) struct Pipeline<P> {
    pub(crate) exports: Option<P>,
    pub(crate) recorder: Option<Recorder>,
}

impl<P: SpanProcessor> SpanProcessor for Pipeline<P> {
    fn on_start(&self, span: &mut Span, context: &Context) {
        Stamps.on_start(span, context);
        if let Some(exports) = &self.exports {
            exports.on_start(span, context);
        }
        if let Some(recorder) = &self.recorder {
            recorder.start(span);
        }
    }

    fn on_end(&self, span: SpanData) {
        if let Some(recorder) = &self.recorder {
            recorder.end(&span);
        }
        // What is recorded only must not leave the process: the SDK's batches would send that, too.
        if let Some(exports) = self.exports.as_ref().filter(|_| span.span_context.is_sampled()) {
            exports.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exports.as_ref().map_or(Ok(()), SpanProcessor::force_flush)
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exports.as_ref().map_or(Ok(()), |exports| exports.shutdown_with_timeout(timeout))
    }

    fn set_resource(&mut self, resource: &Resource) {
        if let Some(exports) = &mut self.exports {
            exports.set_resource(resource);
        }
        if let Some(recorder) = &self.recorder {
            recorder.set_resource(resource);
        }
    }
}
