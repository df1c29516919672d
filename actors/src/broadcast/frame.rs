//! What goes over the wire: JSON text, encoded once for all who get it.

use bytes::Bytes;
use serde::Serialize;

use crate::model::Event;

/// One text message, shared by everyone to whom it is sent. Cloning counts a reference.
///
/// It is always UTF-8: it can only be made from text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame(Bytes);

impl Frame {
    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if it has no text.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text as bytes, still shared.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl From<String> for Frame {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<&'static str> for Frame {
    fn from(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }
}

/// Turns an event into what its subscribers see. Replace it to change the wire format, or to keep parts of an event
/// from them.
///
/// It runs once for each event, on the relay. It may panic: that costs the event in hand.
pub trait Encoder: Send + Sync + 'static {
    /// The text for every subscriber of the event's topic.
    ///
    /// # Errors
    /// When the event cannot be written; it is then given up, counted and logged.
    fn encode(&self, event: &Event) -> Result<String, serde_json::Error>;
}

/// The format of the public API: `{"type":"event","id","topic","data","at","origin_trace_id"}`.
#[derive(Debug, Clone, Copy, Default)]
pub struct JsonEncoder;

#[derive(Serialize)]
struct EventFrame<'a> {
    r#type: &'static str,
    id: uuid::Uuid,
    topic: &'a str,
    data: &'a serde_json::Value,
    /// RFC 3339, UTC.
    at: jiff::Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin_trace_id: Option<String>,
}

impl Encoder for JsonEncoder {
    fn encode(&self, event: &Event) -> Result<String, serde_json::Error> {
        serde_json::to_string(&EventFrame {
            r#type: "event",
            id: event.id,
            topic: &event.topic,
            data: &event.data,
            // Out of range only for a publisher with a broken clock, which is no reason to lose its event.
            at: jiff::Timestamp::from_millisecond(event.at_ms).unwrap_or_default(),
            origin_trace_id: event.context.origin(),
        })
    }
}

/// Tells every subscriber that events are missing here. It does not say how many: the number would count the events
/// of other tenants too.
pub(super) fn gap() -> Frame {
    Frame::from(r#"{"type":"gap"}"#)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{broadcast::testing::event, model::TraceContext};
    use serde_json::{Value, json};

    #[test]
    fn an_event_frame_names_its_origin_and_its_time_in_utc() {
        let mut event = event("demo", "orders", "x");
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        event.at_ms = 1_700_000_000_123;
        event.context = TraceContext::from_parts(Some(&format!("00-{trace}-00f067aa0ba902b7-01")), Some(trace));
        let frame: Value = serde_json::from_str(&JsonEncoder.encode(&event).unwrap()).unwrap();
        assert_eq!(
            frame,
            json!({"type": "event", "id": event.id, "topic": "orders", "data": "x",
                   "at": "2023-11-14T22:13:20.123Z", "origin_trace_id": trace})
        );
    }

    #[test]
    fn an_event_without_a_trace_has_no_origin() {
        let frame = JsonEncoder.encode(&event("demo", "orders", "x")).unwrap();
        assert!(!frame.contains("origin_trace_id"), "{frame}");
    }

    #[test]
    fn clones_of_a_frame_share_one_text() {
        let frame = Frame::from("x".repeat(1_000));
        let clone = frame.clone();
        assert_eq!(frame.into_bytes().as_ptr(), clone.into_bytes().as_ptr());
    }
}
