//! A place in the tree as it is watched: what the tree knows of it and what its loops prove, in one, and bounded.

use std::collections::{BTreeMap, HashMap};

use actors::liveness_monitor::view::{Liveness, Loop};
use serde::Serialize;
use supervision::{Incident, Kind, MailboxSnapshot, NodeSnapshot, Path, Status, StuckIn};

/// Children of one supervisor that are shown. Those that are not as they should be come before the others.
const CHILDREN_MAX: usize = 64;

/// A place in the tree.
#[derive(Serialize)]
pub struct Node {
    id: String,
    path: Path,
    kind: Kind,
    #[serde(flatten)]
    status: Status,
    for_ms: u64,
    incarnation: u64,
    degraded: bool,
    stuck: Option<StuckIn>,
    mailbox: Option<MailboxSnapshot>,
    restarts: u64,
    failures: BTreeMap<&'static str, u64>,
    last_failure: Option<Incident>,
    beats: Vec<Loop>,
    children: Vec<Node>,
    /// Children that are not shown.
    left_off: usize,
    /// How many of those are not as they should be: there are too many of these alone.
    left_off_troubled: usize,
}

/// The loops by their places.
pub fn beats(liveness: Liveness) -> HashMap<String, Vec<Loop>> {
    let mut beats: HashMap<String, Vec<Loop>> = HashMap::new();
    for beat in liveness.subsystems.into_iter().flat_map(|subsystem| subsystem.loops) {
        beats.entry(beat.path.clone()).or_default().push(beat);
    }
    beats
}

impl Node {
    /// With its loops, and with all below it.
    pub fn new(mut seen: NodeSnapshot, beats: &mut HashMap<String, Vec<Loop>>) -> Self {
        let (left_off, left_off_troubled) = thin_out(&mut seen.children);
        Self {
            beats: beats.remove(seen.path.as_str()).unwrap_or_default(),
            children: seen.children.into_iter().map(|child| Self::new(child, beats)).collect(),
            last_failure: seen.history.pop(),
            id: seen.id,
            path: seen.path,
            kind: seen.kind,
            status: seen.status,
            for_ms: seen.for_ms,
            incarnation: seen.incarnation,
            degraded: seen.degraded,
            stuck: seen.stuck,
            mailbox: seen.mailbox,
            restarts: seen.restarts,
            failures: seen.failures,
            left_off,
            left_off_troubled,
        }
    }
}

/// Keeps as many as are shown, in their order. Answers how many are not, and how many of those are in trouble.
fn thin_out(children: &mut Vec<NodeSnapshot>) -> (usize, usize) {
    let left_off = children.len().saturating_sub(CHILDREN_MAX);
    let troubled = children.iter().filter(|child| is_troubled(child)).count();
    let mut places = CHILDREN_MAX.saturating_sub(troubled);
    children.retain(|child| {
        let is_shown = is_troubled(child) || places > 0;
        places -= usize::from(is_shown && !is_troubled(child));
        is_shown
    });
    children.truncate(CHILDREN_MAX);
    (left_off, troubled.saturating_sub(CHILDREN_MAX))
}

/// Whether anything in it is worth a look.
fn is_troubled(node: &NodeSnapshot) -> bool {
    node.status != Status::Up || node.degraded || node.stuck.is_some() || node.children.iter().any(is_troubled)
}

#[cfg(test)]
mod tests {
    use supervision::{ChildSpec, Heartbeats, Strategy, SupervisorSpec, Tree};

    use super::*;

    #[tokio::test]
    async fn of_many_children_those_in_trouble_are_shown_and_the_rest_is_counted() {
        let child = |number: usize| {
            ChildSpec::task(format!("c{number}"), |context| async move {
                context.cancelled().cancelled().await;
                Ok(())
            })
        };
        let spec = SupervisorSpec::new("root", Strategy::OneForOne).with_children((0..100).map(child));
        let tree = Tree::start(spec, Heartbeats::new()).await.unwrap();
        for stopped in ["c70", "c99"] {
            tree.stop_child(stopped).await.unwrap();
        }
        let shown = Node::new(tree.snapshot(), &mut HashMap::new());
        let ids: Vec<_> = shown.children.iter().map(|child| child.id.as_str()).collect();
        assert_eq!((ids.len(), shown.left_off, ids[61], &ids[62..]), (64, 36, "c61", &["c70", "c99"][..]));
        assert_eq!(shown.left_off_troubled, 0);
        for stopped in 0..68 {
            tree.stop_child(format!("c{stopped}").as_str()).await.unwrap();
        }
        let shown = Node::new(tree.snapshot(), &mut HashMap::new());
        assert_eq!((shown.children.len(), shown.left_off, shown.left_off_troubled), (64, 36, 6), "of 70 in trouble");
        tree.stop().await;
    }
}
