//! The spans of a trace in the order of a tree, each with the lines that lead to it.

use std::collections::{HashMap, HashSet};

use otlp::Span;

/// No deeper than this are lines drawn.
const DEPTH_MAX: usize = 40;

/// One span in its place.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// Which of the spans.
    pub(super) index: usize,
    /// What stands before its name.
    pub(super) lead: String,
    /// What stands before all that is said of it below.
    pub(super) below: String,
}

/// Each span once, the parents before their children, neighbours as they began. One whose parent is not there is a root, and
/// so is one of several that are each other's parents.
pub(super) fn rows(spans: &[Span]) -> Vec<Row> {
    let mut order: Vec<usize> = (0..spans.len()).collect();
    order.sort_by_key(|index| spans[*index].start_ns);
    let ids: HashSet<&str> = spans.iter().map(|span| span.span_id.as_str()).collect();
    let mut children: HashMap<&str, Vec<usize>> = HashMap::new();
    let mut roots = Vec::new();
    for index in &order {
        match spans[*index].parent_id.as_str() {
            parent if ids.contains(parent) && parent != spans[*index].span_id => {
                children.entry(parent).or_default().push(*index);
            }
            _ => roots.push(*index),
        }
    }
    let (mut rows, mut seen) = (Vec::new(), HashSet::new());
    for root in roots.into_iter().chain(order) {
        // Not by recursion: how deep it goes is up to whoever sends.
        let mut due = vec![(root, String::new(), String::new(), 0)];
        while let Some((index, lead, below, depth)) = due.pop() {
            if !seen.insert(index) {
                continue;
            }
            let its = children.remove(spans[index].span_id.as_str()).unwrap_or_default();
            let (inner, last) = (if its.is_empty() { "    " } else { "│   " }, its.len().saturating_sub(1));
            for (n, child) in its.into_iter().enumerate().rev() {
                let (to, past) = if n == last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
                let (to, past) = if depth < DEPTH_MAX { (to, past) } else { ("", "") };
                due.push((child, format!("{below}{to}"), format!("{below}{past}"), depth + 1));
            }
            rows.push(Row { index, lead, below: format!("{below}{inner}") });
        }
    }
    rows
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A span with an id, a parent, and nothing else to tell.
    pub(in crate::view) fn span(id: &str, parent: &str) -> Span {
        Span {
            name: id.to_owned(),
            trace_id: "trace".to_owned(),
            span_id: id.to_owned(),
            parent_id: parent.to_owned(),
            kind: 1,
            start_ns: 0,
            end_ns: 0,
            attributes: Default::default(),
            events: Vec::new(),
            links: Vec::new(),
            failed: false,
            status: String::new(),
            resource: Default::default(),
        }
    }

    fn drawn(spans: &[Span]) -> Vec<String> {
        rows(spans).iter().map(|row| format!("{}{}", row.lead, spans[row.index].name)).collect()
    }

    #[test]
    fn children_stand_below_their_parents_in_the_order_of_their_begins() {
        let at = |start_ns, span| Span { start_ns, ..span };
        let spans = [at(3, span("c", "a")), at(2, span("b", "a")), at(1, span("a", "")), at(4, span("d", "b"))];
        assert_eq!(drawn(&spans), ["a", "├─ b", "│  └─ d", "└─ c"]);
    }

    #[test]
    fn a_span_without_its_parent_is_a_root_and_parents_of_each_other_are_drawn_once() {
        assert_eq!(drawn(&[span("a", "elsewhere"), span("b", "b")]), ["a", "b"]);
        assert_eq!(drawn(&[span("a", "b"), span("b", "a")]), ["a", "└─ b"]);
        assert_eq!(drawn(&[span("a", ""), span("a", "")]), ["a", "a"]);
    }

    #[test]
    fn a_trace_of_any_depth_can_be_drawn() {
        let deep = 20_000;
        let spans: Vec<Span> = (0..deep).map(|n| span(&n.to_string(), &(n - 1).to_string())).collect();
        let rows = rows(&spans);
        assert_eq!(rows.len(), spans.len());
        assert!(rows.iter().all(|row| row.lead.chars().count() <= 3 * DEPTH_MAX));
    }
}
