//! The subscriber: the log on stderr, spans to the tracer, log records to the logger, each behind its own filter.

mod fields;
mod json;
mod text;

use super::{LogFormat, StartError, filter};
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::trace::SdkTracer;
use std::io::IsTerminal as _;
use tracing::Subscriber;
use tracing::subscriber::set_global_default;
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::layer::{Filter, Layer, Layered, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Registry, fmt};

type Boxed<S> = Box<dyn Layer<S> + Send + Sync>;
type Traced = Layered<Boxed<Registry>, Registry>;

/// Installs the subscriber for the process.
pub(super) fn install(
    format: LogFormat,
    stderr_filter: impl Filter<Registry> + Send + Sync + 'static,
    logs_filter: impl Filter<Layered<Boxed<Traced>, Traced>> + Send + Sync + 'static,
    tracer: SdkTracer,
    logs: Option<&SdkLoggerProvider>,
) -> Result<(), StartError> {
    let stderr: Boxed<Registry> = stderr(format).with_filter(stderr_filter).boxed();
    let traces: Boxed<Traced> = traces(tracer).with_filter(filter::traces()).boxed();
    let logs = logs.map(|provider| OpenTelemetryTracingBridge::new(provider).with_filter(logs_filter));
    let subscriber = Registry::default().with(stderr).with(traces).with(logs);
    set_global_default(subscriber).map_err(|_| StartError::AlreadyStarted)
}

/// Lean: threads, places and idle times cost a third of a span and are in the panic and the log record anyway.
pub(crate) fn traces<S>(tracer: SdkTracer) -> OpenTelemetryLayer<S, SdkTracer>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    tracing_opentelemetry::layer()
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_tracer(tracer)
}

fn stderr(format: LogFormat) -> Boxed<Registry> {
    let layer = fmt::layer().fmt_fields(NotRead).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => layer.with_ansi(has_colours()).event_format(text::Text).boxed(),
        LogFormat::Json => layer.with_ansi(false).event_format(json::Json).boxed(),
    }
}

/// Neither format shows the fields of the spans around a record, so no span pays for writing them.
struct NotRead;

impl<'writer> FormatFields<'writer> for NotRead {
    fn format_fields<R: RecordFields>(&self, _: Writer<'writer>, _: R) -> std::fmt::Result {
        Ok(())
    }
}

fn has_colours() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::io;
    use std::sync::{Arc, Mutex};
    use tracing_subscriber::fmt::MakeWriter;
    use tracing_subscriber::fmt::format::DefaultFields;
    use tracing_subscriber::fmt::{FormatEvent, FormattedFields};

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            crate::lock(&self.0).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Buffer {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    /// What `format` makes of the records of `work`, with spans traced as in the product.
    fn logged<F>(format: F, work: impl FnOnce()) -> String
    where
        F: FormatEvent<Traced, DefaultFields> + Send + Sync + 'static,
        FormattedFields<DefaultFields>: Send,
    {
        use opentelemetry::trace::TracerProvider as _;
        let buffer = Buffer::default();
        let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder().build();
        let traces: Boxed<Registry> = traces(provider.tracer("test")).boxed();
        let layer = fmt::layer().with_writer(buffer.clone()).with_ansi(false).event_format(format);
        let subscriber = Registry::default().with(traces).with(layer);
        tracing::subscriber::with_default(subscriber, work);
        String::from_utf8(crate::lock(&buffer.0).clone()).unwrap()
    }

    fn ids() -> (String, String) {
        let context = crate::context::TraceContext::current();
        (context.trace_id().unwrap(), context.span_id().unwrap())
    }

    #[test]
    fn a_line_for_people_ends_with_the_trace_id() {
        let mut trace_id = String::new();
        let line = logged(text::Text, || {
            tracing::info_span!("work").in_scope(|| {
                trace_id = ids().0;
                tracing::warn!(jobs = 3_i64, queue = "default", why = "too slow", "claimed");
            });
        });
        let (_time, rest) = line.split_once(' ').unwrap();
        let place = "telemetry::export::log::tests";
        let expected = format!(" WARN {place}: claimed jobs=3 queue=default why=\"too slow\" trace_id={trace_id}\n");
        assert_eq!(rest, expected);
    }

    #[test]
    fn a_line_of_a_request_ends_with_its_id_in_both_formats() {
        use crate::context::{RequestId, TraceContext, as_child};
        let request = TraceContext::default().with_request_id(RequestId::parse("order-7"));
        let work = || {
            let served = as_child(tracing::info_span!("request"), &request, async { tracing::info!("served") });
            futures_util::FutureExt::now_or_never(served).unwrap();
        };
        assert!(logged(text::Text, work).ends_with(" request.id=order-7\n"));
        let record: Value = serde_json::from_str(&logged(json::Json, work)).unwrap();
        assert_eq!(record["request.id"], "order-7");
    }

    #[test]
    fn a_line_bears_the_time_at_which_it_happened_in_both_formats() {
        let work = || {
            let happened = crate::events::HappenedAt(jiff::Timestamp::UNIX_EPOCH);
            let _attached = opentelemetry::Context::new().with_value(happened).attach();
            tracing::info!("long ago");
        };
        assert!(logged(text::Text, work).starts_with("1970-01-01T00:00:00.000Z "));
        let record: Value = serde_json::from_str(&logged(json::Json, work)).unwrap();
        assert_eq!(record["timestamp"], "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn a_value_of_several_lines_follows_below_its_record() {
        let line = logged(text::Text, || tracing::error!(stack = "first\nsecond", "broken"));
        assert!(line.ends_with(" telemetry::export::log::tests: broken\n  stack:\n    first\n    second\n"), "{line}");
    }

    #[test]
    fn what_would_steer_a_terminal_is_shown_and_not_done() {
        let line = logged(text::Text, || {
            tracing::warn!(
                subject = "\u{1b}[2J\rgone",
                stack = "at\u{7}\nhere\u{1b}c",
                "be\u{202e}ware\nsecond\u{1b}[H"
            );
        });
        let place = "telemetry::export::log::tests";
        let expected = format!(
            " WARN {place}: be\\u{{202e}}ware subject=\"\\u{{1b}}[2J\\rgone\"\n    second\\u{{1b}}[H\n  stack:\n    at\\u{{7}}\n    here\\u{{1b}}c\n"
        );
        assert_eq!(line.split_once(' ').unwrap().1, expected);
    }

    #[test]
    fn a_line_for_machines_is_one_object_with_typed_fields_and_ids() {
        let mut expected = Default::default();
        let line = logged(json::Json, || {
            tracing::info_span!("work").in_scope(|| {
                expected = ids();
                tracing::info!(jobs = 3_i64, ok = true, text = "a \"quoted\"\nvalue", "claimed {}", "all");
            });
        });
        assert_eq!(line.lines().count(), 1);
        let record: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&record["level"], &record["message"]), (&Value::from("INFO"), &Value::from("claimed all")));
        assert_eq!(record["fields"], serde_json::json!({"jobs": 3, "ok": true, "text": "a \"quoted\"\nvalue"}));
        assert_eq!((&record["trace_id"], &record["span_id"]), (&expected.0.into(), &expected.1.into()));
        assert!(record["timestamp"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn an_error_is_logged_with_all_its_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("could not claim")]
        struct Outer(#[source] io::Error);
        let error = Outer(io::Error::other("disk full"));
        let line = logged(json::Json, || {
            tracing::warn!(error = &error as &(dyn std::error::Error + 'static), "no luck");
        });
        assert!(line.contains("could not claim: disk full"), "{line}");
    }
}
