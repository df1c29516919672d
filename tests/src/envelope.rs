//! What a reporter sends to Sentry, read as the receiver of it would: a line for the whole, then a line and a body for each
//! thing in it.

use serde_json::{Deserializer, Value};

use crate::receiver::Call;

/// An envelope with one event.
#[derive(Debug, Clone)]
pub struct Envelope {
    /// Of the whole.
    pub header: Value,
    /// Of the event.
    pub item: Value,
    /// The event.
    pub event: Value,
}

impl Envelope {
    /// Reads a call.
    ///
    /// # Panics
    ///
    /// If it is no envelope with exactly one thing in it, or if the lengths in it are wrong.
    pub fn of(call: &Call) -> Envelope {
        let mut lines = call.body.splitn(3, |byte| *byte == b'\n');
        let mut json = || serde_json::from_slice(lines.next().expect("a line")).expect("JSON");
        let (header, item): (Value, Value) = (json(), json());
        let body = lines.next().expect("a body");
        let length = item["length"].as_u64().map_or(body.len(), |length| usize::try_from(length).unwrap());
        let mut events = Deserializer::from_slice(&body[..length]).into_iter::<Value>();
        let event = events.next().expect("an event").expect("JSON");
        assert!(events.next().is_none() && body[length..].iter().all(|byte| *byte == b'\n'), "more than one thing");
        Envelope { header, item, event }
    }

    /// A tag of the event, or an empty text.
    pub fn tag(&self, name: &str) -> &str {
        self.event["tags"][name].as_str().unwrap_or_default()
    }

    /// The one exception.
    pub fn exception(&self) -> &Value {
        let all = self.event["exception"]["values"].as_array().expect("exceptions");
        assert_eq!(all.len(), 1, "{all:#?}");
        &all[0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(body: &'static str) -> Call {
        Call { path: String::new(), headers: http::HeaderMap::new(), body: body.into() }
    }

    #[test]
    fn an_envelope_is_a_header_and_an_item_with_its_own() {
        let read = Envelope::of(&call(
            "{\"event_id\":\"1\"}\n{\"type\":\"event\",\"length\":20}\n{\"tags\":{\"a\":\"b\\n\"}}\n",
        ));
        assert_eq!(
            (&read.header["event_id"], &read.item["type"], read.tag("a")),
            (&"1".into(), &"event".into(), "b\n")
        );
    }

    #[test]
    #[should_panic(expected = "more than one thing")]
    fn what_follows_the_event_is_noticed() {
        Envelope::of(&call("{}\n{\"type\":\"event\",\"length\":2}\n{}\n{\"type\":\"event\"}\n{}"));
    }
}
