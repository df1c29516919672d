//! The last incidents of this process, kept in memory: what an operator opens when "something panicked last night".
//!
//! The ring is bounded; the oldest falls out. Logs and traces are the long memory.

use crate::{lock, reporters};
use jiff::Timestamp;
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, TraceContextExt as _};
use serde::Serialize;
use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use uuid::Uuid;

/// Incidents kept. At some 10 KiB each, mostly backtrace, the ring stays below 3 MiB.
pub const KEPT_MAX: usize = 256;

static RING: Mutex<Ring> = Mutex::new(Ring(VecDeque::new()));

/// The latest incidents, newest first, at most `limit`.
pub fn recent(limit: usize) -> Vec<Arc<Incident>> {
    lock(&RING).0.iter().rev().take(limit).cloned().collect()
}

/// The incident with this id, while it is kept.
pub fn get(id: IncidentId) -> Option<Arc<Incident>> {
    lock(&RING).0.iter().rev().find(|incident| incident.id == id).cloned()
}

/// Keeps an incident that is no panic: somebody is stuck, or gave up. It belongs to the trace in force. Whoever notes it logs
/// it, too.
pub fn note(noted: Noted<'_>) -> IncidentId {
    let span = Context::map_current(|context| context.span().span_context().clone());
    let span = Some(span).filter(SpanContext::is_valid);
    let incident = Incident {
        id: IncidentId::new(),
        at: Timestamp::now(),
        kind: noted.kind,
        component: noted.component.to_owned(),
        actor: noted.actor.to_owned(),
        policy: noted.policy,
        phase: "run".to_owned(),
        incarnation: noted.incarnation,
        message_type: None,
        message: noted.message,
        location: None,
        thread: std::thread::current().name().unwrap_or("unnamed").to_owned(),
        backtrace: None,
        trace_id: span.as_ref().map(|span| span.trace_id().to_string()),
        span_id: span.as_ref().map(|span| span.span_id().to_string()),
        tenant: None,
        detail: noted.detail,
        outcome: None,
    };
    let id = incident.id;
    keep(incident.clone());
    reporters::tell(incident);
    id
}

/// What is known of an incident that is no panic.
#[derive(Debug, Clone)]
pub struct Noted<'a> {
    /// What kind: `stuck`, `gave_up`.
    pub kind: &'static str,
    /// The child of the root under which it happened.
    pub component: &'a str,
    /// The path below the root, in dots.
    pub actor: &'a str,
    /// What is to be done about it: `restart`, `degrade`, `escalate`, `none`.
    pub policy: &'static str,
    /// Which life of the actor, from 1.
    pub incarnation: u64,
    /// What happened, in one sentence.
    pub message: String,
    /// What else is known.
    pub detail: Vec<(String, String)>,
}

/// Says what became of it: "restarted as incarnation 2 after 1000 ms". Answers whether the incident is still kept.
pub fn amend(id: IncidentId, outcome: impl Into<String>) -> bool {
    let outcome = outcome.into();
    change(id, |incident| incident.outcome = Some(outcome))
}

/// Something that went wrong and was survived, or at least noticed.
#[derive(Debug, Clone, Serialize)]
pub struct Incident {
    /// Names it everywhere: in the log, on the span, in `/admin/incidents/{id}`.
    pub id: IncidentId,
    /// When it happened; RFC 3339 in JSON.
    pub at: Timestamp,
    /// What kind: `panic`, `panic.uncaught` when nobody caught it, or what was [noted](note): `stuck`, `gave_up`.
    pub kind: &'static str,
    /// The child of the root under which it happened.
    pub component: String,
    /// The path below the root, in dots.
    pub actor: String,
    /// What was to be done about it: `restart`, `keep_running`, `crash_process`, `none`; `degrade`, `escalate`.
    pub policy: &'static str,
    /// What it was doing: `start`, `handle`, `stop` ...
    pub phase: String,
    /// Which life of the actor, from 1; 0 if it has none.
    pub incarnation: u64,
    /// Type of the message it was handling.
    pub message_type: Option<String>,
    /// The panic's message.
    pub message: String,
    /// `file:line:column`.
    pub location: Option<String>,
    /// Name of the thread.
    pub thread: String,
    /// The backtrace: absent until it is resolved, at most 5 s, and of what is no panic.
    pub backtrace: Option<String>,
    /// The trace in which it happened.
    pub trace_id: Option<String>,
    /// The span in which it happened.
    pub span_id: Option<String>,
    /// The tenant whose work it was.
    pub tenant: Option<String>,
    /// What else the place that caught it knew; then, if an assertion broke, its condition and what it saw.
    pub detail: Vec<(String, String)>,
    /// What became of it, once somebody decided.
    pub outcome: Option<String>,
}

/// Names an incident. Ids sort by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct IncidentId(Uuid);

impl IncidentId {
    pub(crate) fn new() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for IncidentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for IncidentId {
    type Err = InvalidIncidentId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self).map_err(|_| InvalidIncidentId)
    }
}

/// The text is not the id of an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an incident id is a UUID")]
pub struct InvalidIncidentId;

pub(crate) fn keep(incident: Incident) {
    lock(&RING).keep(incident);
}

pub(crate) fn change(id: IncidentId, change: impl FnOnce(&mut Incident)) -> bool {
    lock(&RING).change(id, change)
}

/// Oldest first.
#[derive(Debug)]
struct Ring(VecDeque<Arc<Incident>>);

impl Ring {
    fn keep(&mut self, incident: Incident) {
        if self.0.len() >= KEPT_MAX {
            self.0.pop_front();
        }
        self.0.push_back(Arc::new(incident));
    }

    fn change(&mut self, id: IncidentId, change: impl FnOnce(&mut Incident)) -> bool {
        let found = self.0.iter_mut().rev().find(|incident| incident.id == id);
        // Whoever reads the old version keeps it.
        found.map(|incident| change(Arc::make_mut(incident))).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incident(message: &str) -> Incident {
        Incident {
            id: IncidentId::new(),
            at: Timestamp::UNIX_EPOCH,
            kind: "panic",
            component: "c".into(),
            actor: "c.a".into(),
            policy: "restart",
            phase: "handle".into(),
            incarnation: 1,
            message_type: None,
            message: message.into(),
            location: None,
            thread: "t".into(),
            backtrace: None,
            trace_id: None,
            span_id: None,
            tenant: None,
            detail: vec![("job".into(), "7".into())],
            outcome: None,
        }
    }

    #[test]
    fn the_ring_keeps_the_latest_and_no_more() {
        let mut ring = Ring(VecDeque::new());
        (0..300).for_each(|number| ring.keep(incident(&number.to_string())));
        let kept: Vec<_> = ring.0.iter().map(|incident| incident.message.as_str()).collect();
        assert_eq!((kept.len(), kept.first(), kept.last()), (KEPT_MAX, Some(&"44"), Some(&"299")));
    }

    #[test]
    fn an_incident_that_fell_out_cannot_be_amended() {
        let mut ring = Ring(VecDeque::new());
        let first = incident("first");
        let id = first.id;
        ring.keep(first);
        assert!(ring.change(id, |incident| incident.outcome = Some("restarted".into())));
        assert_eq!(ring.0[0].outcome.as_deref(), Some("restarted"));
        (0..KEPT_MAX).for_each(|_| ring.keep(incident("later")));
        assert!(!ring.change(id, |incident| incident.outcome = None));
    }

    #[test]
    fn an_id_survives_the_way_through_text() {
        let id = IncidentId::new();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("42".parse::<IncidentId>().unwrap_err().to_string(), "an incident id is a UUID");
    }

    #[test]
    fn an_incident_reads_as_json_with_its_time_in_plain() {
        let json = serde_json::to_value(incident("broke")).unwrap();
        assert_eq!((json["at"].as_str(), json["detail"][0][1].as_str()), (Some("1970-01-01T00:00:00Z"), Some("7")));
    }
}
