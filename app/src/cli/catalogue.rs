//! All that this binary can tell of itself: each metric, span and event, as it was declared beside the code that makes it.

use std::fmt::{self, Display, Formatter, Write};

use serde::Serialize;
use telemetry::{events, metrics, spans};

/// What libraries tell by conventions of their own: how the names begin, and whose they are.
const OF_LIBRARIES: [Foreign; 1] = [Foreign {
    prefix: "otel.sdk.",
    origin: "opentelemetry_sdk, by the conventions for its own health: what was exported, dropped, queued",
}];

#[derive(Serialize)]
struct Catalogue {
    metrics: Vec<Metric>,
    metrics_of_libraries: [Foreign; 1],
    spans: Vec<Span>,
    attributes_of_any_span: [&'static str; 2],
    events: Vec<Event>,
}

#[derive(Serialize)]
struct Metric {
    name: &'static str,
    prometheus: String,
    kind: &'static str,
    unit: &'static str,
    labels: Vec<Label>,
    help: &'static str,
    module: &'static str,
}

#[derive(Serialize)]
struct Label {
    name: &'static str,
    /// All there are, if the set is closed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    values: Vec<&'static str>,
}

#[derive(Serialize)]
struct Foreign {
    prefix: &'static str,
    origin: &'static str,
}

#[derive(Serialize)]
struct Span {
    name: &'static str,
    kind: &'static str,
    made: &'static str,
    attributes: Vec<&'static str>,
    help: &'static str,
    module: &'static str,
}

#[derive(Serialize)]
struct Event {
    name: &'static str,
    level: &'static str,
    target: &'static str,
    attributes: &'static [&'static str],
    help: &'static str,
    module: &'static str,
}

impl Catalogue {
    fn collect() -> Self {
        Self {
            metrics: metrics::catalogue().into_iter().map(Metric::of).collect(),
            metrics_of_libraries: OF_LIBRARIES,
            spans: spans::catalogue().into_iter().map(Span::of).collect(),
            attributes_of_any_span: spans::EVERYWHERE,
            events: events::catalogue().into_iter().map(Event::of).collect(),
        }
    }
}

impl Metric {
    fn of(declared: &metrics::Declaration) -> Self {
        let label = |label: metrics::Label| Label { name: label.name, values: label.values };
        Self {
            name: declared.name,
            prometheus: declared.prometheus_name(),
            kind: declared.kind.as_str(),
            unit: declared.unit,
            labels: (declared.labels)().into_iter().map(label).collect(),
            help: declared.help,
            module: declared.module,
        }
    }
}

impl Span {
    fn of(declared: &spans::Declaration) -> Self {
        Self {
            name: declared.name,
            kind: declared.kind,
            made: declared.made.as_str(),
            attributes: declared.attributes(),
            help: declared.help,
            module: declared.module,
        }
    }
}

impl Event {
    fn of(declared: &events::Declaration) -> Self {
        Self {
            name: declared.name,
            level: declared.level,
            target: declared.target,
            attributes: declared.attributes,
            help: declared.help,
            module: declared.module,
        }
    }
}

/// For machines.
pub(super) fn as_json() -> String {
    // Names and lists of names can always be written.
    serde_json::to_string_pretty(&Catalogue::collect()).unwrap_or_default()
}

/// For people: a block for each.
pub(super) fn as_text() -> String {
    let all = Catalogue::collect();
    let mut text = Text::default();
    text.title("METRICS: kind, unit, name in Prometheus; labels, with their values where the set is closed");
    for Metric { name, prometheus, kind, unit, labels, help, .. } in &all.metrics {
        let labels: Vec<_> = labels.iter().map(ToString::to_string).collect();
        text.block(name, &format!("{kind}, {unit}, {prometheus}"), help, &labels);
    }
    text.title("METRICS OF LIBRARIES");
    for Foreign { prefix, origin } in &all.metrics_of_libraries {
        text.block(&format!("{prefix}*"), "", origin, &[]);
    }
    text.title("SPANS: kind, where it is made; attributes");
    for Span { name, kind, made, attributes, help, .. } in &all.spans {
        text.block(name, &format!("{kind}, {made}"), help, &owned(attributes));
    }
    text.block("any span", "", "May bear these too.", &owned(&all.attributes_of_any_span));
    text.title("EVENTS: level and target of the log record; attributes");
    for Event { name, level, target, attributes, help, .. } in &all.events {
        text.block(name, &format!("{level}, {target}"), help, &owned(attributes));
    }
    text.block("any log record", "", "At WARN or ERROR it is an event of its span too, named by its text.", &[]);
    text.0.trim().to_owned()
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

impl Display for Label {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.values.as_slice() {
            [] => f.write_str(self.name),
            values => write!(f, "{} = {}", self.name, values.join(" | ")),
        }
    }
}

/// Writing to a string does not fail.
#[derive(Default)]
struct Text(String);

impl Text {
    fn title(&mut self, title: &str) {
        let _ = writeln!(self.0, "\n{title}\n");
    }

    /// Names of labels and attributes share lines; a label with its values has one of its own.
    fn block(&mut self, name: &str, what: &str, help: &str, details: &[String]) {
        let gap = if what.is_empty() { "" } else { "  " };
        let _ = writeln!(self.0, "{name}{gap}{what}\n    {help}");
        let (closed, open): (Vec<_>, Vec<_>) = details.iter().partition(|detail| detail.contains(" = "));
        if !open.is_empty() {
            let open: Vec<_> = open.into_iter().map(String::as_str).collect();
            let _ = writeln!(self.0, "    {}", open.join(", "));
        }
        for detail in closed {
            let _ = writeln!(self.0, "    {detail}");
        }
    }
}
