//! Attributes as JSON, and the other small things that spans and log records have in common.

use opentelemetry::logs::AnyValue;
use opentelemetry::trace::SpanKind;
use opentelemetry::{Array, KeyValue, Value};
use serde::{Serialize, Serializer};
use serde_json::Value as Json;
use std::time::{Duration, SystemTime};

/// Names with their values, in the order in which they were set. Written as one object; of two of one name the later counts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Attributes(Vec<(String, Json)>);

impl Attributes {
    /// The value of `name` as text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(key, _)| key == name).and_then(|(_, value)| value.as_str())
    }
}

impl Serialize for Attributes {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let once = self.0.iter().enumerate().filter(|(at, (key, _))| !self.0[at + 1..].iter().any(|(k, _)| k == key));
        to.collect_map(once.map(|(_, (key, value))| (key, value)))
    }
}

impl From<&Vec<KeyValue>> for Attributes {
    fn from(attributes: &Vec<KeyValue>) -> Self {
        Self(attributes.iter().map(|each| (each.key.to_string(), of_value(&each.value))).collect())
    }
}

impl<'a> FromIterator<&'a (opentelemetry::Key, AnyValue)> for Attributes {
    fn from_iter<I: IntoIterator<Item = &'a (opentelemetry::Key, AnyValue)>>(attributes: I) -> Self {
        Self(attributes.into_iter().map(|(key, value)| (key.to_string(), of_any(value))).collect())
    }
}

fn of_value(value: &Value) -> Json {
    match value {
        Value::Bool(value) => (*value).into(),
        Value::I64(value) => (*value).into(),
        Value::F64(value) => (*value).into(),
        Value::String(value) => value.as_str().into(),
        Value::Array(Array::Bool(values)) => values.clone().into(),
        Value::Array(Array::I64(values)) => values.clone().into(),
        Value::Array(Array::F64(values)) => values.clone().into(),
        Value::Array(Array::String(values)) => values.iter().map(|value| value.as_str()).collect::<Vec<_>>().into(),
        other => other.to_string().into(),
    }
}

/// Also of a log record's body.
pub(super) fn of_any(value: &AnyValue) -> Json {
    match value {
        AnyValue::Int(value) => (*value).into(),
        AnyValue::Double(value) => (*value).into(),
        AnyValue::String(value) => value.as_str().into(),
        AnyValue::Boolean(value) => (*value).into(),
        AnyValue::Bytes(bytes) => bytes.as_slice().into(),
        AnyValue::ListAny(values) => values.iter().map(of_any).collect::<Vec<_>>().into(),
        AnyValue::Map(entries) => entries
            .iter()
            .map(|(key, value)| (key.to_string(), of_any(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        other => format!("{other:?}").into(),
    }
}

/// An attribute's text, without a copy.
pub(super) fn text_of<'a>(attributes: &'a [KeyValue], name: &str) -> Option<&'a str> {
    let found = attributes.iter().rev().find(|attribute| attribute.key.as_str() == name)?;
    match &found.value {
        Value::String(text) => Some(text.as_str()),
        _ => None,
    }
}

pub(super) fn kind(kind: &SpanKind) -> &'static str {
    match kind {
        SpanKind::Client => "client",
        SpanKind::Server => "server",
        SpanKind::Producer => "producer",
        SpanKind::Consumer => "consumer",
        SpanKind::Internal => "internal",
    }
}

/// Since the epoch.
pub(super) fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The first `max` bytes of `text`, or a character less.
pub(super) fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}
