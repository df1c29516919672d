//! A trace as text: what failed, then the tree, with the log of each span below it.

use std::fmt::Write;
use std::time::Duration;

use anstyle::{AnsiColor, Style};

use super::pending::Trace;
use super::tree::rows;
use otlp::{Attributes, Log, Span};

const BAD: Style = AnsiColor::Red.on_default().bold();
const WARNING: Style = AnsiColor::Yellow.on_default();
const NAME: Style = Style::new().bold();
const ASIDE: Style = Style::new().dimmed();

/// The longest value that is shown, in characters.
const VALUE_MAX: usize = 160;

/// Said elsewhere, or too long for a line.
const NOT_SHOWN: [&str; 3] = ["exception.stacktrace", "exception.message", "request.id"];

/// The whole trace, an empty line at its end. Writing to a string does not fail.
pub(super) fn trace(trace: &Trace) -> String {
    let mut text = String::new();
    head(&mut text, trace);
    for span in trace.spans.iter().filter(|span| span.failed) {
        let _ = writeln!(text, "{BAD}! {}: {}{BAD:#}", clean(&span.name), clean(&reason(span)));
    }
    let begin = trace.start_ns();
    for row in rows(&trace.spans) {
        let span = &trace.spans[row.index];
        line(&mut text, &row.lead, span);
        let logs = trace.logs.iter().filter(|log| log.span_id == span.span_id);
        logs.for_each(|log| record(&mut text, &row.below, log, begin));
    }
    let is_here = |log: &&Log| trace.spans.iter().any(|span| span.span_id == log.span_id);
    let others = trace.logs.iter().filter(|log| !is_here(log));
    others.for_each(|log| record(&mut text, "", log, begin));
    text.push('\n');
    text
}

fn head(text: &mut String, trace: &Trace) {
    let mut facts = Vec::new();
    if !trace.spans.is_empty() {
        let end = trace.spans.iter().map(|span| span.end_ns).max().unwrap_or_default();
        facts.push(took(trace.start_ns(), end));
        facts.push(match trace.spans.len() {
            1 => "1 span".to_owned(),
            many => format!("{many} spans"),
        });
    }
    facts.extend(follows(trace).map(|origin| format!("follows {}", clean(&origin))));
    let resource = trace.spans.first().map(|span| &span.resource).or(trace.logs.first().map(|log| &log.resource));
    facts.extend(resource.and_then(|resource| resource.get("service.name")).map(|name| clean(name)));
    let (style, mark) = if trace.has_failed() { (BAD, "ERROR ") } else { (NAME, "") };
    let what = if trace.id.is_empty() { "no trace".to_owned() } else { format!("trace {}", clean(&trace.id)) };
    let _ = writeln!(text, "{style}{mark}{what}{style:#}  {}", facts.join("  "));
}

/// The trace where the story began, or the one that the root is linked to.
fn follows(trace: &Trace) -> Option<String> {
    let root = trace.spans.iter().find(|span| span.is_root())?;
    let origin = root.attributes.get("origin.trace_id").cloned();
    origin.or_else(|| root.links.first().map(|link| link.trace_id.clone()))
}

fn line(text: &mut String, lead: &str, span: &Span) {
    let (style, mark) = if span.failed { (BAD, "✗ ") } else { (NAME, "") };
    let kind = match span.kind {
        2 => "  server",
        3 => "  client",
        4 => "  producer",
        5 => "  consumer",
        _ => "",
    };
    let _ = write!(text, "{lead}{style}{mark}{}{style:#}  {}", clean(&span.name), took(span.start_ns, span.end_ns));
    let _ = writeln!(text, "{ASIDE}{kind}{}{ASIDE:#}", listed(&span.attributes));
}

/// What went wrong: what the exception says, else the status, else its kind.
fn reason(span: &Span) -> String {
    let exception = span.events.iter().find_map(|event| event.attributes.get("exception.message"));
    let status = Some(&span.status).filter(|status| !status.is_empty());
    exception.or(status).or(span.attributes.get("error.type")).cloned().unwrap_or_else(|| "failed".to_owned())
}

fn record(text: &mut String, below: &str, log: &Log, begin: u64) {
    let style = match log.severity.as_str() {
        "ERROR" | "FATAL" => BAD,
        "WARN" => WARNING,
        _ => ASIDE,
    };
    let (at, severity) = (took(begin, log.time_ns), clean(&log.severity));
    let _ = write!(text, "{below}+{at} {style}{severity}{style:#} {}", clean(&log.body));
    let _ = writeln!(text, "{ASIDE}{}{ASIDE:#}", listed(&log.attributes));
}

fn took(from_ns: u64, to_ns: u64) -> String {
    format!("{:.1?}", Duration::from_nanos(to_ns.saturating_sub(from_ns)))
}

fn listed(attributes: &Attributes) -> String {
    let shown = attributes.iter().filter(|(key, _)| !NOT_SHOWN.contains(&key.as_str()));
    shown.map(|(key, value)| format!("  {}={}", clean(key), clean(value))).collect()
}

/// As it may stand in a terminal: in one line, in one direction, not too long, and without a command to the terminal.
fn clean(text: &str) -> String {
    let mut clean = String::new();
    for (n, character) in text.chars().enumerate() {
        match character {
            _ if n == VALUE_MAX => {
                clean.push('…');
                break;
            }
            control if control.is_control() || turns(control) => clean.extend(control.escape_default()),
            plain => clean.push(plain),
        }
    }
    clean
}

/// Whether it changes the direction of what stands around it, or ends a line.
fn turns(character: char) -> bool {
    matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::view::pending::Pending;
    use crate::view::tree::tests::span;
    use otlp::SpanEvent;

    /// As it is read without colours.
    fn drawn(spans: Vec<Span>, logs: Vec<Log>) -> String {
        let (mut pending, now) = (Pending::default(), Instant::now());
        spans.into_iter().for_each(|span| pending.span(span, now));
        logs.into_iter().for_each(|log| pending.log(log, now));
        let text: String = pending.all().iter().map(trace).collect();
        anstream::adapter::strip_str(&text).to_string()
    }

    fn log(span: &str, body: &str) -> Log {
        Log {
            name: String::new(),
            body: body.to_owned(),
            severity: "WARN".to_owned(),
            time_ns: 2_000_000,
            trace_id: "trace".to_owned(),
            span_id: span.to_owned(),
            attributes: [("tenant".to_owned(), "demo".to_owned())].into(),
            resource: Default::default(),
        }
    }

    #[test]
    fn a_trace_shows_what_failed_then_its_tree_with_the_logs_of_each_span() {
        let message = [("exception.message".to_owned(), "it broke".to_owned())].into();
        let broke = SpanEvent { name: "panic.recovered".to_owned(), attributes: message };
        let root = Span { end_ns: 3_000_000, ..span("request", "") };
        let failed = Span {
            start_ns: 1_000_000,
            end_ns: 2_500_000,
            failed: true,
            events: vec![broke],
            ..span("job", "request")
        };
        let text = drawn(vec![failed, root], vec![log("job", "slow"), log("gone", "elsewhere")]);
        assert_eq!(
            text,
            "ERROR trace trace  3.0ms  2 spans\n\
             ! job: it broke\n\
             request  3.0ms\n\
             └─ ✗ job  1.5ms\n\
             \x20      +2.0ms WARN slow  tenant=demo\n\
             +2.0ms WARN elsewhere  tenant=demo\n\n"
        );
    }

    #[test]
    fn a_record_without_a_time_does_not_make_a_trace_as_old_as_the_epoch() {
        let at = 1_700_000_000_000_000_000;
        let only = Span { start_ns: at, end_ns: at + 3_000_000, ..span("request", "") };
        let text = drawn(vec![only], vec![Log { time_ns: 0, ..log("request", "when?") }]);
        assert!(text.starts_with("trace trace  3.0ms  1 span\n"), "{text}");
    }

    #[test]
    fn what_was_sent_cannot_command_the_terminal() {
        let text = drawn(vec![span("\u{1b}[2J\nname", "")], vec![log("x", "\u{7}\u{202e}\u{2066}\u{200f}")]);
        assert!(text.contains("\\u{7}\\u{202e}\\u{2066}\\u{200f}"), "nor turn a line round: {text}");
        assert!(!text.contains('\u{1b}') && !text.contains('\u{7}') && text.contains("\\u{1b}[2J\\nname"), "{text}");
    }

    #[test]
    fn a_value_that_is_long_is_cut() {
        let text = drawn(vec![span(&"ä".repeat(100_000), "")], Vec::new());
        assert!(text.contains('…') && text.chars().count() < 1_000, "{}", text.len());
    }
}
