//! The door to the dynamic supervisor below: the dispatcher adds and removes children of the tree it stands in itself.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use supervision::{ChildSpec, OperationError, Tree};
use uuid::Uuid;

use super::{COURIERS, ID};

/// The couriers, as children of the running tree. Cheap to clone.
///
/// The tree exists only after it was started, and the dispatcher is part of it: so the tree is handed in afterwards, and
/// until then nothing is added.
#[derive(Clone, Default)]
pub(super) struct Couriers(Arc<OnceLock<Tree>>);

impl Couriers {
    /// Hands in the tree; only the first call counts.
    pub(super) fn attach(&self, tree: Tree) {
        // A second call would be the same tree.
        let _ = self.0.set(tree);
    }

    /// True once children can be added.
    pub(super) fn is_attached(&self) -> bool {
        self.0.get().is_some()
    }

    /// Adds and starts a courier.
    pub(super) async fn add(&self, courier: ChildSpec) -> Result<(), OperationError> {
        self.tree()?.add_child(supervisor().as_str(), courier).await.map(drop)
    }

    /// Stops and forgets a courier; one that is gone already is fine.
    pub(super) async fn remove(&self, channel: Uuid) -> Result<(), OperationError> {
        let tree = self.tree()?;
        let path = format!("{}.{channel}", supervisor());
        match tree.stop_child(path.as_str()).await {
            Ok(()) | Err(OperationError::NotRunning) => {}
            Err(OperationError::NotFound) => return Ok(()),
            Err(error) => return Err(error),
        }
        match tree.delete_child(path.as_str()).await {
            Ok(()) | Err(OperationError::NotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The ids of all couriers, running or not.
    pub(super) fn ids(&self) -> HashSet<String> {
        let Some(tree) = self.0.get() else {
            return HashSet::new();
        };
        let snapshot = tree.snapshot();
        let children = snapshot.find(&supervisor()).map(|node| node.children.as_slice()).unwrap_or_default();
        children.iter().map(|child| child.id.clone()).collect()
    }

    fn tree(&self) -> Result<&Tree, OperationError> {
        self.0.get().ok_or(OperationError::NotRunning)
    }
}

fn supervisor() -> String {
    format!("{ID}.{COURIERS}")
}
