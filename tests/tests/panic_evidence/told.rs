//! All that must be known of one panic: whoever has any part of it finds the others.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use tests::collector::{Log, Point, Span};
use tests::{Collector, Service, eventually};

const SOON: Duration = Duration::from_secs(60);

/// The span of the client in tests that send one. Nobody exports it.
pub const CALLER: &str = "b7ad6b7169203331";

/// A panic of one kind of place, as it must be told.
#[derive(Default)]
pub struct Told<'a> {
    /// The child of the root.
    pub component: &'a str,
    /// The child itself.
    pub actor: &'a str,
    /// What follows.
    pub policy: &'a str,
    /// What was going on.
    pub phase: &'a str,
    /// The end of the name of the message in hand, if there was one.
    pub message_type: &'a str,
    /// Whose work it was, if anyone's.
    pub tenant: &'a str,
    /// What else must be known: names with their values, of which an empty one stands for any.
    pub detail: Vec<(&'a str, &'a str)>,
    /// How the sentence begins that says what became of it.
    pub outcome: &'a str,
    /// The file of ours that panicked.
    pub file: &'a str,
    /// The span in which it happened.
    pub span: &'a str,
}

impl Told<'_> {
    /// Waits until all is known of it, ends the service, and looks at what has arrived. Returns the incident.
    pub async fn by(&self, service: &Service, collector: &Collector) -> Value {
        self.among(1, service, collector).await
    }

    /// As [`Told::by`], where there are so many panics with the same labels.
    pub async fn among(&self, panics: u32, service: &Service, collector: &Collector) -> Value {
        let incident = self.incident(service).await;
        let labels = [("component", self.component), ("actor", self.actor), ("policy", self.policy)];
        let count = Some(f64::from(panics));
        assert_eq!(service.metrics().await.value("panic_recovered_total", &labels), count);
        let ended = service.stop().await;
        assert_eq!(ended.code, 0, "{}", ended.log());
        self.arrived(&incident, collector);
        let is_it = |point: &Point| point.name == "panic_recovered_total" && point.bears(&labels);
        assert_eq!(collector.points().into_iter().rfind(is_it).map(|point| point.value), count);
        is_whole(&collector.spans());
        incident
    }

    /// What is kept in the process.
    async fn incident(&self, service: &Service) -> Value {
        let last = std::cell::RefCell::new(Value::Null);
        let show = ShownOnFailure(&last);
        let incident = eventually("the incident is complete", SOON, || async {
            let all = service.admin().get("/admin/incidents").await.expect(200).json();
            let is_it = |one: &&Value| {
                [("component", self.component), ("actor", self.actor), ("phase", self.phase)]
                    .iter()
                    .all(|(field, value)| one[*field] == *value)
            };
            let found = all["items"].as_array().unwrap().iter().find(is_it).cloned();
            *last.borrow_mut() = found.clone().unwrap_or(all);
            let found = found?;
            let is_decided = found["outcome"].as_str().is_some_and(|outcome| outcome.starts_with(self.outcome));
            (is_decided && found["backtrace"].is_string()).then_some(found)
        })
        .await;
        drop(show);
        let text = |field: &str| incident[field].as_str().unwrap_or_default();
        assert_eq!((text("kind"), text("policy"), text("tenant")), ("panic", self.policy, self.tenant), "{incident:#}");
        assert!(names(text("message_type"), self.message_type), "{incident:#}");
        assert!(text("location").contains(self.file), "{incident:#}");
        self.is_a_stack_of_ours(text("backtrace"));
        let detail = incident["detail"].as_array().unwrap();
        for (key, value) in &self.detail {
            let found =
                detail.iter().find(|pair| pair[0] == *key).unwrap_or_else(|| panic!("no {key} in {incident:#}"));
            let found = found[1].as_str().unwrap();
            assert!(if value.is_empty() { !found.is_empty() } else { found == *value }, "{key} in {incident:#}");
        }
        incident
    }

    /// What was sent: the event on its span, and the record.
    fn arrived(&self, incident: &Value, collector: &Collector) {
        let id = incident["id"].as_str().unwrap();
        let (spans, logs) = (collector.spans(), collector.logs());
        let span = bearing(&spans, id);
        assert_eq!(span.name, self.span);
        self.is_told_on(span);
        assert_eq!(incident["trace_id"], span.trace_id.as_str());
        assert_eq!(incident["span_id"], span.span_id.as_str());
        let told: Vec<&Log> = logs.iter().filter(|log| log.attribute("incident.id") == id).collect();
        let [log] = told.as_slice() else { panic!("told {} times: {told:#?}", told.len()) };
        assert_eq!((log.name.as_str(), log.severity.as_str()), ("panic.recovered", "ERROR"));
        assert_eq!((&log.trace_id, &log.span_id), (&span.trace_id, &span.span_id));
        self.is_said_in(|key| log.attribute(key));
    }

    /// The span is an error, and says why.
    pub fn is_told_on(&self, span: &Span) {
        let event = span.event("panic.recovered").unwrap();
        assert!(span.failed && span.attribute("error.type") == "panic", "{span:#?}");
        assert!(span.status.contains(event.attribute("exception.message")), "{span:#?}");
        self.is_said_in(|key| event.attribute(key));
    }

    /// The same in the event and in the record.
    pub fn is_said_in<'b>(&self, value: impl Fn(&str) -> &'b str) {
        assert_eq!((value("exception.type"), value("error.type")), ("panic", "panic"));
        assert!(value("exception.message").contains("panic"), "{}", value("exception.message"));
        let who = [value("component"), value("actor"), value("policy"), value("phase"), value("tenant")];
        assert_eq!(who, [self.component, self.actor, self.policy, self.phase, self.tenant]);
        assert!(names(value("message_type"), self.message_type), "{}", value("message_type"));
        let worked_on = value("panic.detail");
        for (key, expected) in &self.detail {
            let found = worked_on.split(' ').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
            assert!(found.is_some_and(|found| expected.is_empty() || found == *expected), "{key} in {worked_on}");
        }
        self.is_a_stack_of_ours(value("exception.stacktrace"));
    }

    /// The file of ours, with a line.
    fn is_a_stack_of_ours(&self, stack: &str) {
        let lines = stack.lines().filter_map(|line| line.split_once(self.file)?.1.strip_prefix(':'));
        let mut lines = lines.filter_map(|place| place.split(':').next()?.parse::<u32>().ok());
        assert!(lines.next().is_some(), "no line of {} in {stack}", self.file);
    }
}

/// The one span that tells of the incident.
pub fn bearing<'a>(spans: &'a [Span], id: &str) -> &'a Span {
    let is_it = |span: &&Span| span.events.iter().any(|event| event.attribute("incident.id") == id);
    let found: Vec<&Span> = spans.iter().filter(is_it).collect();
    let [span] = found.as_slice() else { panic!("told on {} spans: {found:#?}", found.len()) };
    let told = span.events.iter().filter(|event| event.attribute("incident.id") == id).count();
    assert_eq!(told, 1, "{span:#?}");
    span
}

/// No span is missing: each one's parent has arrived, or is the caller's.
fn is_whole(spans: &[Span]) {
    let ids: BTreeSet<&str> = spans.iter().map(|span| span.span_id.as_str()).collect();
    let is_orphan =
        |span: &&Span| !span.is_root() && span.parent_id != CALLER && !ids.contains(span.parent_id.as_str());
    let orphans: Vec<&Span> = spans.iter().filter(is_orphan).collect();
    assert!(orphans.is_empty() && spans.len() > 10, "{orphans:#?} of {}", spans.len());
}

/// Whether a type is the one that is meant; none if none is.
fn names(found: &str, expected: &str) -> bool {
    if expected.is_empty() { found.is_empty() } else { found.ends_with(expected) }
}

/// Shows what there was when a wait is given up.
struct ShownOnFailure<'a>(&'a std::cell::RefCell<Value>);

impl Drop for ShownOnFailure<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("what there was: {:#}", self.0.borrow());
        }
    }
}
