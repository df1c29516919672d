//! What arrives by OTLP, flattened: each span, log record and point by itself, ids in hex, values as text.

use std::collections::BTreeMap;
use std::sync::Arc;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{NumberDataPoint, number_data_point};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::{logs, trace};

/// Attributes by name, their values as text.
pub type Attributes = BTreeMap<String, String>;

/// A span.
#[derive(Debug, Clone)]
pub struct Span {
    /// Its name.
    pub name: String,
    /// 32 digits.
    pub trace_id: String,
    /// 16 digits.
    pub span_id: String,
    /// 16 digits; empty for a root.
    pub parent_id: String,
    /// `SpanKind` of OTLP: 1 internal, 2 server, 3 client, 4 producer, 5 consumer.
    pub kind: i32,
    /// Nanoseconds since 1970.
    pub start_ns: u64,
    /// Nanoseconds since 1970.
    pub end_ns: u64,
    /// Its attributes.
    pub attributes: Attributes,
    /// Its events.
    pub events: Vec<SpanEvent>,
    /// The spans it points to.
    pub links: Vec<Link>,
    /// Whether its status is Error.
    pub failed: bool,
    /// What its status says, or empty.
    pub status: String,
    /// The attributes of the service that sent it.
    pub resource: Arc<Attributes>,
}

/// An event on a span.
#[derive(Debug, Clone)]
pub struct SpanEvent {
    /// Its name.
    pub name: String,
    /// Its attributes.
    pub attributes: Attributes,
}

/// A link from a span to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The other's trace, 32 digits.
    pub trace_id: String,
    /// The other, 16 digits.
    pub span_id: String,
}

/// A log record.
#[derive(Debug, Clone)]
pub struct Log {
    /// The name of the event it records, or empty.
    pub name: String,
    /// Its text.
    pub body: String,
    /// As `INFO`.
    pub severity: String,
    /// When it happened, or else when it was seen, nanoseconds since 1970; 0 if neither is known.
    pub time_ns: u64,
    /// The trace in which it was written, 32 digits, or empty.
    pub trace_id: String,
    /// The span in which it was written, 16 digits, or empty.
    pub span_id: String,
    /// Its attributes.
    pub attributes: Attributes,
    /// The attributes of the service that sent it.
    pub resource: Arc<Attributes>,
}

/// One point of one metric.
#[derive(Debug, Clone)]
pub struct Point {
    /// The metric's name.
    pub name: String,
    /// The metric's unit.
    pub unit: String,
    /// `counter`, `updowncounter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// The labels.
    pub attributes: Attributes,
    /// The value; of a histogram, how many were recorded.
    pub value: f64,
}

impl Span {
    /// An attribute's value, empty if it is not there.
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }

    /// Whether it links to a span of that trace.
    pub fn links_to(&self, trace_id: &str) -> bool {
        self.links.iter().any(|link| link.trace_id == trace_id)
    }

    /// Whether nothing stands above it.
    pub fn is_root(&self) -> bool {
        self.parent_id.is_empty()
    }

    /// Its event of that name.
    pub fn event(&self, name: &str) -> Option<&SpanEvent> {
        self.events.iter().find(|event| event.name == name)
    }
}

impl SpanEvent {
    /// An attribute's value, empty if it is not there.
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

impl Log {
    /// An attribute's value, empty if it is not there.
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

impl Point {
    /// Whether it bears these labels.
    pub fn bears(&self, labels: &[(&str, &str)]) -> bool {
        labels.iter().all(|(name, value)| self.attributes.get(*name).is_some_and(|found| found == value))
    }
}

pub(crate) fn spans(request: ExportTraceServiceRequest) -> Vec<Span> {
    let mut spans = Vec::new();
    for of_resource in request.resource_spans {
        let resource = resource(of_resource.resource);
        for of_scope in of_resource.scope_spans {
            spans.extend(of_scope.spans.into_iter().map(|sent| span(sent, &resource)));
        }
    }
    spans
}

fn span(sent: trace::v1::Span, resource: &Arc<Attributes>) -> Span {
    let event =
        |event: trace::v1::span::Event| SpanEvent { name: event.name, attributes: attributes(event.attributes) };
    let link = |link: trace::v1::span::Link| Link { trace_id: hex(&link.trace_id), span_id: hex(&link.span_id) };
    Span {
        name: sent.name,
        trace_id: hex(&sent.trace_id),
        span_id: hex(&sent.span_id),
        parent_id: hex(&sent.parent_span_id),
        kind: sent.kind,
        start_ns: sent.start_time_unix_nano,
        end_ns: sent.end_time_unix_nano,
        attributes: attributes(sent.attributes),
        events: sent.events.into_iter().map(event).collect(),
        links: sent.links.into_iter().map(link).collect(),
        failed: sent.status.as_ref().is_some_and(|status| status.code == trace::v1::status::StatusCode::Error as i32),
        status: sent.status.map_or_else(String::new, |status| status.message),
        resource: resource.clone(),
    }
}

pub(crate) fn logs(request: ExportLogsServiceRequest) -> Vec<Log> {
    let mut logs = Vec::new();
    for of_resource in request.resource_logs {
        let resource = resource(of_resource.resource);
        for of_scope in of_resource.scope_logs {
            logs.extend(of_scope.log_records.into_iter().map(|sent| log(sent, &resource)));
        }
    }
    logs
}

fn log(sent: logs::v1::LogRecord, resource: &Arc<Attributes>) -> Log {
    Log {
        name: sent.event_name,
        body: sent.body.map_or_else(String::new, text),
        severity: sent.severity_text,
        time_ns: if sent.time_unix_nano == 0 { sent.observed_time_unix_nano } else { sent.time_unix_nano },
        trace_id: hex(&sent.trace_id),
        span_id: hex(&sent.span_id),
        attributes: attributes(sent.attributes),
        resource: resource.clone(),
    }
}

pub(crate) fn points(request: ExportMetricsServiceRequest) -> Vec<Point> {
    let scopes = request.resource_metrics.into_iter().flat_map(|of_resource| of_resource.scope_metrics);
    let metrics = scopes.flat_map(|of_scope| of_scope.metrics);
    metrics
        .flat_map(|metric| {
            let kind = kind(metric.data.as_ref());
            values(metric.data).into_iter().map(move |(attributes, value)| Point {
                name: metric.name.clone(),
                unit: metric.unit.clone(),
                kind,
                attributes,
                value,
            })
        })
        .collect()
}

fn kind(data: Option<&Data>) -> &'static str {
    match data {
        Some(Data::Gauge(_)) => "gauge",
        Some(Data::Sum(sum)) if sum.is_monotonic => "counter",
        Some(Data::Sum(_)) => "updowncounter",
        Some(Data::Histogram(_)) => "histogram",
        _ => "unknown",
    }
}

fn values(data: Option<Data>) -> Vec<(Attributes, f64)> {
    let number = |point: NumberDataPoint| {
        let value = match point.value {
            Some(number_data_point::Value::AsInt(value)) => value as f64,
            Some(number_data_point::Value::AsDouble(value)) => value,
            None => f64::NAN,
        };
        (attributes(point.attributes), value)
    };
    match data {
        Some(Data::Gauge(gauge)) => gauge.data_points.into_iter().map(number).collect(),
        Some(Data::Sum(sum)) => sum.data_points.into_iter().map(number).collect(),
        Some(Data::Histogram(histogram)) => {
            histogram.data_points.into_iter().map(|point| (attributes(point.attributes), point.count as f64)).collect()
        }
        _ => Vec::new(),
    }
}

fn resource(sent: Option<Resource>) -> Arc<Attributes> {
    Arc::new(attributes(sent.map_or_else(Vec::new, |resource| resource.attributes)))
}

fn attributes(sent: Vec<KeyValue>) -> Attributes {
    sent.into_iter().map(|pair| (pair.key, pair.value.map_or_else(String::new, text))).collect()
}

fn text(value: AnyValue) -> String {
    match value.value {
        Some(Value::StringValue(text)) => text,
        Some(Value::BoolValue(value)) => value.to_string(),
        Some(Value::IntValue(value)) => value.to_string(),
        Some(Value::DoubleValue(value)) => value.to_string(),
        Some(other) => format!("{other:?}"),
        None => String::new(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_record_without_a_time_of_its_own_has_that_at_which_it_was_seen() {
        let sent = |time_unix_nano, observed_time_unix_nano| logs::v1::LogRecord {
            time_unix_nano,
            observed_time_unix_nano,
            ..Default::default()
        };
        let time = |sent| log(sent, &Arc::default()).time_ns;
        assert_eq!([time(sent(1, 2)), time(sent(0, 2)), time(sent(0, 0))], [1, 2, 0]);
    }
}
