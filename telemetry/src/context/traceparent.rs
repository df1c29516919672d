//! The W3C `traceparent` header value: `00-<32 hex trace id>-<16 hex span id>-<2 hex flags>`.
//!
//! Rows and messages store it without a propagator being set up, and the SDK's own reader comes only with the exporters.

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// Reads a header value. `None` for whatever the standard calls invalid.
pub(super) fn parse(value: &str) -> Option<SpanContext> {
    let mut parts = value.trim().split('-');
    let version = hex(parts.next()?, 2)?;
    let trace_id = parse_trace_id(parts.next()?)?;
    let span_id = SpanId::from_hex(hex(parts.next()?, 16)?).ok()?;
    let flags = u8::from_str_radix(hex(parts.next()?, 2)?, 16).ok()?;
    // A later version may append fields; the first version may not.
    let known = version != "ff" && (version != "00" || parts.next().is_none());
    let context = SpanContext::new(trace_id, span_id, TraceFlags::new(flags & 1), true, TraceState::default());
    (known && context.is_valid()).then_some(context)
}

/// Reads a trace id of 32 lower case hex digits, not all zero.
pub fn parse_trace_id(value: &str) -> Option<TraceId> {
    TraceId::from_hex(hex(value, 32)?).ok().filter(|id| *id != TraceId::INVALID)
}

/// Writes the header value.
pub(super) fn format(span: &SpanContext) -> String {
    format!("00-{}-{}-{:02x}", span.trace_id(), span.span_id(), span.trace_flags() & TraceFlags::SAMPLED)
}

fn hex(text: &str, length: usize) -> Option<&str> {
    let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (digits && text.len() == length).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_value_survives_reading_and_writing() {
        assert_eq!(parse(VALID).map(|span| format(&span)).as_deref(), Some(VALID));
    }

    #[test]
    fn a_later_version_may_have_more_fields() {
        let later = VALID.replacen("00", "01", 1) + "-more";
        assert_eq!(parse(&later).map(|span| format(&span)).as_deref(), Some(VALID));
    }

    #[test]
    fn what_the_standard_calls_invalid_is_refused() {
        let invalid = [
            "",
            "00",
            "garbage",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-é1",
        ];
        for value in invalid {
            assert_eq!(parse(value), None, "{value}");
        }
    }
}
