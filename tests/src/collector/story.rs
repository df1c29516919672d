//! All that came of one trace, over all that followed from it.

use std::collections::HashSet;

use super::{Collector, Span};

/// The spans of one trace, and of every trace that says that it began there.
#[derive(Debug)]
pub struct Story {
    origin: String,
    spans: Vec<Span>,
}

impl Collector {
    /// What one search for this trace finds, of what has come until now.
    pub fn story(&self, origin: &str) -> Story {
        let mut spans = self.spans();
        let begins_there = |span: &Span| span.is_root() && span.attribute("origin.trace_id") == origin;
        let followers = spans.iter().filter(|span| begins_there(span)).map(|span| span.trace_id.clone());
        let traces: HashSet<String> = followers.chain([origin.to_owned()]).collect();
        spans.retain(|span| traces.contains(&span.trace_id));
        Story { origin: origin.to_owned(), spans }
    }
}

impl Story {
    /// All of them, as they came.
    pub fn spans(&self) -> impl Iterator<Item = &Span> {
        self.spans.iter()
    }

    /// Whether this span is one of them.
    pub fn has(&self, span: &Span) -> bool {
        self.spans.iter().any(|known| (&known.trace_id, &known.span_id) == (&span.trace_id, &span.span_id))
    }

    /// The first span of this name.
    pub fn span(&self, name: &str) -> Option<&Span> {
        self.spans.iter().find(|span| span.name == name)
    }

    /// Where it is broken: a span whose parent is not in it, and a root of a later trace that links to nothing in it. The
    /// first trace goes on with the span of a caller who sends us nothing.
    pub fn gaps(&self, caller: &str) -> Vec<String> {
        let known: HashSet<_> = self.spans.iter().map(|span| (&span.trace_id, &span.span_id)).collect();
        let is_held = |span: &&Span| match span.is_root() {
            true => {
                span.trace_id == self.origin || span.links.iter().any(|to| known.contains(&(&to.trace_id, &to.span_id)))
            }
            false => span.parent_id == caller || known.contains(&(&span.trace_id, &span.parent_id)),
        };
        let lost = self.spans.iter().filter(|span| !is_held(span));
        lost.map(|span| format!("{} hangs in the air: {:?}", span.name, span.links)).collect()
    }
}
