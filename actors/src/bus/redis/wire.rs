//! What goes over the channel: one JSON object for each message, a header and a body.
//!
//! ```json
//! {"v":1,"from":"<process>","epoch":3,"n":17,"kind":"event","body":{...}}
//! ```
//!
//! The header is the same in every version, so that a replica which cannot read the body of a newer one still knows that
//! an event is missing, and whose.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::IgnoreReason;
use crate::model::Event;

/// The version of the bodies. Raised when one of them changes so that an older replica would misread it.
const VERSION: u32 = 1;

/// What a message may have around the largest event: header, ids, tenant, topic and trace, generously.
const AROUND_EVENT: usize = 4 << 10;

/// The part that numbers a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// The process that sent it.
    pub from: Uuid,
    /// Which connection of that process, counted from 1: numbers begin anew with each.
    pub epoch: u64,
    /// How many events it has sent over this connection, this one included.
    pub n: u64,
    /// What the body is.
    pub kind: Kind,
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// An event; the only kind that is counted.
    Event,
    /// Comes every second, so that silence is noticed, and bears the number of the last event, so that its loss is too.
    Beat,
    /// Tests the path; of interest to its sender alone.
    Probe,
    /// Of a newer version.
    #[serde(other)]
    Unknown,
}

/// What a message carries.
#[derive(Debug)]
pub(super) enum Body {
    Event(Box<Event>),
    Beat,
    Probe(Uuid),
    /// The header was read, the body cannot be.
    Unreadable,
}

/// Why something on the channel is none of ours.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Garbage {
    /// Longer than any message.
    TooLarge,
    /// Without our header.
    Header,
}

impl Garbage {
    /// The label of a metric.
    pub fn reason(&self) -> IgnoreReason {
        match self {
            Self::TooLarge => IgnoreReason::TooLarge,
            Self::Header => IgnoreReason::Garbage,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Envelope<'a> {
    v: u32,
    from: Uuid,
    epoch: u64,
    n: u64,
    kind: Kind,
    #[serde(borrow)]
    body: &'a RawValue,
}

/// The text of a message. `body` is JSON already: an event, the id of a probe, or `null`.
///
/// # Errors
/// None that can be brought about: every part is plain.
pub(super) fn encode(header: Header, body: &RawValue) -> Result<String, serde_json::Error> {
    let Header { from, epoch, n, kind } = header;
    serde_json::to_string(&Envelope { v: VERSION, from, epoch, n, kind, body })
}

/// Reads a message of anyone who can write to the channel. `event_bytes_max` is the largest event.
///
/// # Errors
/// [`Garbage`] when it is not one of ours at all.
pub(super) fn decode(payload: &[u8], event_bytes_max: usize) -> Result<(Header, Body), Garbage> {
    if payload.len() > event_bytes_max + AROUND_EVENT {
        return Err(Garbage::TooLarge);
    }
    let Envelope { v, from, epoch, n, kind, body } = serde_json::from_slice(payload).map_err(|_| Garbage::Header)?;
    let header = Header { from, epoch, n, kind };
    Ok((header, if v == VERSION { read(kind, body.get()) } else { Body::Unreadable }))
}

fn read(kind: Kind, body: &str) -> Body {
    let read = match kind {
        Kind::Event => serde_json::from_str(body).map(Body::Event),
        Kind::Probe => serde_json::from_str(body).map(Body::Probe),
        Kind::Beat => Ok(Body::Beat),
        Kind::Unknown => Ok(Body::Unreadable),
    };
    read.unwrap_or(Body::Unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{broadcast::testing::event, model::TraceContext};
    use serde_json::{Value, json, value::to_raw_value};

    const MAX: usize = 256 << 10;

    fn header(kind: Kind) -> Header {
        Header { from: Uuid::from_u128(7), epoch: 3, n: 17, kind }
    }

    #[test]
    fn an_event_comes_back_as_it_was_sent_with_its_number_and_its_trace() {
        let mut sent = event("demo", "orders", "x");
        sent.context = TraceContext::from_parts(Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"), None);
        let text = encode(header(Kind::Event), &to_raw_value(&sent).unwrap()).unwrap();
        let (read, Body::Event(came)) = decode(text.as_bytes(), MAX).unwrap() else { panic!("no event in {text}") };
        assert_eq!((read, &*came), (header(Kind::Event), &sent));
        assert_eq!(came.context.traceparent(), sent.context.traceparent());
    }

    #[test]
    fn an_event_as_deep_as_json_may_be_is_read_again() {
        let mut sent = event("demo", "orders", "x");
        sent.data = (0..126).fold(Value::Null, |inner, _| json!([inner]));
        let text = encode(header(Kind::Event), &to_raw_value(&sent).unwrap()).unwrap();
        assert!(matches!(decode(text.as_bytes(), MAX), Ok((_, Body::Event(_)))));
    }

    #[test]
    fn a_newer_version_or_a_broken_body_leaves_the_header_readable() {
        let envelope = |v: u32, kind: &str, body: Value| json!({"v": v, "from": Uuid::from_u128(7), "epoch": 3, "n": 17, "kind": kind, "body": body, "new": 1});
        for (text, kind) in [
            (envelope(2, "event", json!({"shape": "new"})), Kind::Event),
            (envelope(1, "event", json!({"tenant": "No Such"})), Kind::Event),
            (envelope(1, "probe", json!("no id")), Kind::Probe),
            (envelope(1, "brand_new", json!(null)), Kind::Unknown),
        ] {
            let (read, body) = decode(text.to_string().as_bytes(), MAX).unwrap();
            assert_eq!(read, header(kind));
            assert!(matches!(body, Body::Unreadable), "{body:?} in {text}");
        }
    }

    #[test]
    fn what_has_no_header_of_ours_is_garbage_whatever_it_is() {
        let deep = "[".repeat(100_000);
        for text in ["", "x", "{}", "null", "{\"v\":1}", "\u{0}", deep.as_str()] {
            assert_eq!(decode(text.as_bytes(), MAX).unwrap_err(), Garbage::Header);
        }
        assert_eq!(decode(&[0xff, 0xfe], MAX).unwrap_err(), Garbage::Header);
        assert_eq!(decode(&vec![b' '; MAX * 2], MAX).unwrap_err(), Garbage::TooLarge);
    }
}
