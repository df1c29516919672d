//! For people: one line, with the trace id and the request's id at its end. A value of several lines, such as a backtrace, follows below.

use super::super::stamps::{happened_at, request_id};
use super::fields::{Fields, ids};
use crate::context::REQUEST_ID_FIELD;
use jiff::Timestamp;
use serde_json::Value;
use std::fmt::{self, Write as _};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// `2026-01-31T12:00:00.000Z  INFO scheduler::claimer: claimed jobs=3 trace_id=4bf9...`
#[derive(Debug)]
pub(super) struct Text;

impl<S, N> FormatEvent<S, N> for Text
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let metadata = event.metadata();
        let fields = Fields::of(event);
        write!(writer, "{:.3} ", happened_at().unwrap_or_else(Timestamp::now))?;
        level(&mut writer, *metadata.level())?;
        write!(writer, " {}:", metadata.target())?;
        let mut message = fields.message.lines();
        if let Some(first) = message.next() {
            write!(writer, " {}", Shown(first))?;
        }
        let (long, short): (Vec<_>, Vec<_>) = fields.others.iter().partition(|(_, value)| is_long(value));
        short.iter().try_for_each(|(name, value)| write!(writer, " {name}={}", Short(value)))?;
        if let Some((trace_id, _)) = ids() {
            write!(writer, " trace_id={trace_id}")?;
        }
        if let Some(id) = request_id() {
            write!(writer, " {REQUEST_ID_FIELD}={id}")?;
        }
        writeln!(writer)?;
        message.try_for_each(|line| writeln!(writer, "    {}", Shown(line)))?;
        long.iter().try_for_each(|(name, value)| block(&mut writer, name, value))
    }
}

fn level(writer: &mut Writer<'_>, level: Level) -> fmt::Result {
    let colour = match level {
        Level::ERROR => "31",
        Level::WARN => "33",
        Level::INFO => "32",
        _ => "2",
    };
    match writer.has_ansi_escapes() {
        true => write!(writer, "\x1b[{colour}m{level:>5}\x1b[0m"),
        false => write!(writer, "{level:>5}"),
    }
}

fn is_long(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.contains('\n'))
}

fn block(writer: &mut Writer<'_>, name: &str, value: &Value) -> fmt::Result {
    writeln!(writer, "  {name}:")?;
    value.as_str().unwrap_or_default().lines().try_for_each(|line| writeln!(writer, "    {}", Shown(line)))
}

/// A value in a line: text without quotes unless it has spaces or quotes.
struct Short<'a>(&'a Value);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::String(text) if text.is_empty() || text.contains(needs_quotes) => write!(f, "{text:?}"),
            Value::String(text) => f.write_str(text),
            other => other.fmt(f),
        }
    }
}

fn needs_quotes(c: char) -> bool {
    matches!(c, ' ' | '"' | '=') || is_steering(c)
}

/// Whether it would steer a terminal, or turn the text around it.
fn is_steering(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text that anybody may have sent: what would steer a terminal is written out.
struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .chars()
            .try_for_each(|c| if is_steering(c) { write!(f, "{}", c.escape_debug()) } else { f.write_char(c) })
    }
}
