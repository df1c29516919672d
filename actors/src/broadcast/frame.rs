//! What goes over the wire: JSON text, encoded once for all who get it.

use bytes::{Buf, Bytes};
use serde::Serialize;
use uuid::Uuid;

use crate::model::Event;

/// One message, shared by everyone to whom it is sent. Cloning counts a reference.
///
/// It leaves in two forms, and both are slices of one buffer: the text of a WebSocket stands within the block of
/// Server-Sent Events, as its `data`. So neither is made twice, and which one a subscriber takes costs nothing.
///
/// It is always UTF-8: it can only be made from text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// `id: ...\nevent: ...\ndata: TEXT\n\n`.
    block: Bytes,
    /// Where the text begins.
    text_at: usize,
}

/// Ends the data and the block: <https://html.spec.whatwg.org/multipage/server-sent-events.html>.
const BLOCK_END: &str = "\n\n";

impl Frame {
    /// An event, from its text. In Server-Sent Events it is a `message`, which is what a browser's `onmessage` gets.
    pub fn event(id: Uuid, text: &str) -> Self {
        Self::new(&format!("id: {id}\nevent: message\ndata: "), text)
    }

    /// Anything else that is said to a subscriber, from its text; in Server-Sent Events it has this name.
    pub fn notice(name: &'static str, text: &str) -> Self {
        Self::new(&format!("event: {name}\ndata: "), text)
    }

    /// The text must be one line, as JSON is if nobody makes it pretty: a second one would end the data.
    fn new(head: &str, text: &str) -> Self {
        Self { block: [head, text, BLOCK_END].concat().into(), text_at: head.len() }
    }

    /// The length of its text in bytes.
    pub fn len(&self) -> usize {
        self.block.len() - self.text_at - BLOCK_END.len()
    }

    /// True if it has no text.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The text as bytes, still shared.
    pub fn into_text(mut self) -> Bytes {
        let len = self.len();
        self.block.advance(self.text_at);
        self.block.truncate(len);
        self.block
    }

    /// The block of Server-Sent Events as bytes, still shared.
    pub fn into_block(self) -> Bytes {
        self.block
    }
}

#[cfg(test)]
impl From<String> for Frame {
    fn from(text: String) -> Self {
        Self::notice("test", &text)
    }
}

#[cfg(test)]
impl From<&str> for Frame {
    fn from(text: &str) -> Self {
        Self::notice("test", text)
    }
}

/// Turns an event into what its subscribers see. Replace it to change the wire format, or to keep parts of an event
/// from them.
///
/// It runs once for each event, on the relay. It may panic: that costs the event in hand.
pub trait Encoder: Send + Sync + 'static {
    /// The text for every subscriber of the event's topic, in one line.
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
    Frame::notice("gap", r#"{"type":"gap"}"#)
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
        assert_eq!(frame.into_text().as_ptr(), clone.into_text().as_ptr());
    }

    #[test]
    fn both_forms_of_a_frame_are_one_buffer_and_the_text_is_the_data_of_the_block() {
        let id = Uuid::now_v7();
        let frame = Frame::event(id, r#"{"n":1}"#);
        assert_eq!((frame.len(), frame.is_empty()), (7, false));
        let (text, block) = (frame.clone().into_text(), frame.into_block());
        assert_eq!(
            (&text[..], &block[..]),
            (&b"{\"n\":1}"[..], format!("id: {id}\nevent: message\ndata: {{\"n\":1}}\n\n").as_bytes())
        );
        assert_eq!(text.as_ptr() as usize - block.as_ptr() as usize, block.len() - 2 - text.len());
        assert_eq!(&gap().into_block()[..], b"event: gap\ndata: {\"type\":\"gap\"}\n\n");
    }
}
