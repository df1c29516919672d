// What the examples of the front page share and do not show.

#[allow(unused_imports, reason = "each example uses a part of them")]
use supervision::*;
#[allow(unused_imports, reason = "each example uses a part of them")]
use tokio::time::{Instant, sleep};

include!("counter.rs");
include!("sweeper.rs");

type Checked = Result<(), Box<dyn std::error::Error>>;

const SECOND: Duration = Duration::from_secs(1);

async fn start(spec: SupervisorSpec) -> Tree {
    Tree::start(spec, Heartbeats::new()).await.expect("the tree starts")
}

fn node(tree: &Tree, path: &str) -> NodeSnapshot {
    tree.snapshot().find(path).expect("the child exists").clone()
}

fn incarnations<const N: usize>(tree: &Tree, paths: [&str; N]) -> [u64; N] {
    paths.map(|path| node(tree, path).incarnation)
}
