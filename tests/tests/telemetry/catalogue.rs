//! `app telemetry catalogue --json`, and how what arrives is found in it.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;
use tests::binary::app;
use tests::collector::Span;

/// The names of labels or attributes.
pub type Names = BTreeSet<String>;

pub struct Catalogue {
    pub metrics: BTreeMap<String, Metric>,
    pub foreign: Vec<String>,
    pub spans: BTreeMap<String, SpanKind>,
    pub everywhere: Names,
    pub events: BTreeMap<String, Names>,
}

pub struct Metric {
    pub kind: String,
    pub unit: String,
    pub prometheus: String,
    /// Each label with its values, if they are a closed set.
    pub labels: BTreeMap<String, Names>,
}

pub struct SpanKind {
    pub kind: String,
    pub made: String,
    pub attributes: Names,
}

/// What the command says.
pub fn said(arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(app());
    command.args(["telemetry", "catalogue"]).args(arguments).current_dir(folder.path()).env_clear();
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

fn names(value: &Value) -> Names {
    value.as_array().into_iter().flatten().map(text).collect()
}

/// A list of objects with names, by them. No two have the same.
fn named<T>(list: &Value, read: impl Fn(&Value) -> T) -> BTreeMap<String, T> {
    let list = list.as_array().unwrap();
    let all: BTreeMap<String, T> = list.iter().map(|each| (text(&each["name"]), read(each))).collect();
    assert_eq!(all.len(), list.len(), "a name stands for two things");
    all
}

impl Catalogue {
    pub fn read() -> Catalogue {
        let all: Value = serde_json::from_str(&said(&["--json"])).unwrap();
        let metric = |metric: &Value| Metric {
            kind: text(&metric["kind"]),
            unit: text(&metric["unit"]),
            prometheus: text(&metric["prometheus"]),
            labels: named(&metric["labels"], |label| names(&label["values"])),
        };
        let span = |span: &Value| SpanKind {
            kind: text(&span["kind"]),
            made: text(&span["made"]),
            attributes: names(&span["attributes"]),
        };
        let foreign = all["metrics_of_libraries"].as_array().unwrap();
        Catalogue {
            metrics: named(&all["metrics"], metric),
            foreign: foreign.iter().map(|each| text(&each["prefix"])).collect(),
            spans: named(&all["spans"], span),
            everywhere: names(&all["attributes_of_any_span"]),
            events: named(&all["events"], |event| names(&event["attributes"])),
        }
    }

    pub fn is_foreign(&self, metric: &str) -> bool {
        self.foreign.iter().any(|prefix| metric.starts_with(prefix))
    }

    /// Under which name a span stands here.
    pub fn name_of(&self, span: &Span) -> Option<&str> {
        let kind = ["", "internal", "server", "client", "producer", "consumer"][usize::try_from(span.kind).unwrap()];
        let is_it = |name: &&String| self.spans[*name].kind == kind && fits(name, span);
        self.spans.keys().find(is_it).map(String::as_str)
    }
}

/// Whether the name is made as `pattern` says: `{a|b}` is one of these, `{x.y}` the value of that attribute. What would end in
/// a space, because there is no such attribute, ends before it.
fn fits(pattern: &str, span: &Span) -> bool {
    rest_fits(pattern, &span.name, span) || rest_fits(pattern, &format!("{} ", span.name), span)
}

fn rest_fits(pattern: &str, name: &str, span: &Span) -> bool {
    let Some((before, rest)) = pattern.split_once('{') else { return pattern == name };
    let (hole, after) = rest.split_once('}').unwrap();
    let Some(name) = name.strip_prefix(before) else { return false };
    let filled = |with: &str| name.strip_prefix(with).is_some_and(|name| rest_fits(after, name, span));
    match hole.contains('|') {
        true => hole.split('|').any(filled),
        false => filled(span.attribute(hole)),
    }
}
