//! For machines: one JSON object in each line.

use super::super::stamps::{happened_at, request_id};
use super::fields::{Fields, ids};
use crate::context::REQUEST_ID_FIELD;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::fmt;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// `{"timestamp":...,"level":"INFO","target":...,"message":...,"fields":{...},"trace_id":...,"span_id":...,"request.id":...}`
#[derive(Debug)]
pub(super) struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let metadata = event.metadata();
        let fields = Fields::of(event);
        let others: Map<String, Value> =
            fields.others.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let mut line = json!({
            "timestamp": format!("{:.3}", happened_at().unwrap_or_else(Timestamp::now)),
            "level": metadata.level().as_str(),
            "target": metadata.target(),
            "message": fields.message,
            "fields": others,
        });
        if let Some((trace_id, span_id)) = ids() {
            line["trace_id"] = trace_id.into();
            line["span_id"] = span_id.into();
        }
        if let Some(id) = request_id() {
            line[REQUEST_ID_FIELD] = id.as_str().into();
        }
        writeln!(writer, "{line}")
    }
}
