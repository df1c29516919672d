//! What a span or a log record takes, in bytes: itself, and all that it owns on the heap. Text is counted as if each were
//! its own, so what is static costs less than is counted, and the rings take rather less than their limits.

use opentelemetry::logs::AnyValue;
use opentelemetry::trace::{Event, Link, SpanContext, Status};
use opentelemetry::{Array, KeyValue, Value};
use opentelemetry_sdk::logs::SdkLogRecord;
use opentelemetry_sdk::trace::SpanData;
use std::borrow::Cow;
use std::mem::size_of;

/// What the allocator adds to each piece, all in all.
const PIECE: usize = 16;

/// The counts of an `Arc`, and the place in a queue that points to it.
pub(super) const HELD: usize = PIECE + 2 * size_of::<usize>() + 2 * size_of::<usize>();

/// Something that is kept and takes room.
pub(crate) trait Size {
    /// All of it, in bytes.
    fn size(&self) -> usize;

    /// Whether it is what somebody will look for: it goes last where others must make room.
    fn is_failure(&self) -> bool;
}

impl Size for SpanData {
    fn size(&self) -> usize {
        HELD + size_of::<Self>()
            + owned(&self.name)
            + state(&self.span_context)
            + attributes(&self.attributes)
            + block::<Event>(self.events.events.capacity())
            + self.events.iter().map(event).sum::<usize>()
            + block::<Link>(self.links.links.capacity())
            + self.links.iter().map(link).sum::<usize>()
            + match &self.status {
                Status::Error { description } => owned(description),
                _ => 0,
            }
    }

    fn is_failure(&self) -> bool {
        matches!(self.status, Status::Error { .. })
    }
}

impl<T: Size> Size for std::sync::Arc<T> {
    fn size(&self) -> usize {
        T::size(self)
    }

    fn is_failure(&self) -> bool {
        T::is_failure(self)
    }
}

impl Size for SdkLogRecord {
    fn size(&self) -> usize {
        let attributes = self.attributes_iter().map(|(key, value)| text(key.as_str()) + any(value)).sum::<usize>();
        HELD + size_of::<Self>() + attributes + self.body().map_or(0, any) + self.target().map_or(0, owned)
    }

    fn is_failure(&self) -> bool {
        self.severity_number().is_some_and(|severity| severity >= opentelemetry::logs::Severity::Error)
    }
}

pub(super) fn attributes(attributes: &Vec<KeyValue>) -> usize {
    let each = attributes.iter().map(|attribute| text(attribute.key.as_str()) + value(&attribute.value)).sum::<usize>();
    block::<KeyValue>(attributes.capacity()) + each
}

fn event(event: &Event) -> usize {
    owned(&event.name) + attributes(&event.attributes)
}

fn link(link: &Link) -> usize {
    state(&link.span_context) + attributes(&link.attributes)
}

fn state(context: &SpanContext) -> usize {
    text(&context.trace_state().header())
}

fn value(value: &Value) -> usize {
    match value {
        Value::String(string) => text(string.as_str()),
        Value::Array(Array::Bool(items)) => block::<bool>(items.capacity()),
        Value::Array(Array::I64(items)) => block::<i64>(items.capacity()),
        Value::Array(Array::F64(items)) => block::<f64>(items.capacity()),
        Value::Array(Array::String(items)) => {
            block::<opentelemetry::StringValue>(items.capacity())
                + items.iter().map(|item| text(item.as_str())).sum::<usize>()
        }
        _ => 0,
    }
}

fn any(value: &AnyValue) -> usize {
    match value {
        AnyValue::String(string) => text(string.as_str()),
        AnyValue::Bytes(bytes) => block::<u8>(bytes.len()),
        AnyValue::ListAny(items) => block::<AnyValue>(items.len()) + items.iter().map(any).sum::<usize>(),
        AnyValue::Map(entries) => {
            let each = entries.iter().map(|(key, value)| text(key.as_str()) + any(value)).sum::<usize>();
            block::<(opentelemetry::Key, AnyValue)>(entries.len()) + each
        }
        _ => 0,
    }
}

#[expect(clippy::ptr_arg, reason = "only text that is owned is on the heap")]
pub(super) fn owned(text: &Cow<'static, str>) -> usize {
    match text {
        Cow::Borrowed(_) => 0,
        Cow::Owned(text) => block::<u8>(text.capacity()),
    }
}

fn text(text: &str) -> usize {
    block::<u8>(text.len())
}

fn block<T>(capacity: usize) -> usize {
    if capacity == 0 { 0 } else { PIECE + capacity * size_of::<T>() }
}
