//! Where a child stands in the tree.

use std::{fmt, sync::Arc};

use serde::{Serialize, Serializer};

/// The ids from the root's child down to one child, joined by dots: `scheduler.claimer`. The root itself is the empty
/// path and prints as `/`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path(Arc<str>);

impl Path {
    /// The path of the root supervisor.
    pub fn root() -> Self {
        Self(Arc::from(""))
    }

    /// The path of the child `id` below this one.
    pub fn child(&self, id: &str) -> Self {
        if self.0.is_empty() { Self(Arc::from(id)) } else { Self(Arc::from(format!("{}.{id}", self.0))) }
    }

    /// Where the children of a path begin in the order of paths: the path and a dot.
    pub(crate) fn from_below(prefix: &str) -> Self {
        Self(Arc::from(prefix))
    }

    /// The ids joined by dots; empty for the root.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The direct child of the root under which this path lies; metrics and incidents are grouped by it.
    pub fn component(&self) -> &str {
        first_of(&self.0)
    }

    /// The ids, from the root's child down.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.split('.').filter(|id| !id.is_empty())
    }

    /// True for the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }
}

/// The first of ids, or of names, that are joined by dots.
pub(crate) fn first_of(dotted: &str) -> &str {
    match dotted.split('.').next() {
        Some("") | None => "root",
        Some(first) => first,
    }
}

impl From<&str> for Path {
    fn from(path: &str) -> Self {
        Self(Arc::from(path.trim_matches(['/', '.']).replace('/', ".")))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "/" } else { &self.0 })
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Path {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_its_component_and_reads_slashes_as_dots() {
        let claimer = Path::root().child("scheduler").child("claimer");
        assert_eq!(claimer.as_str(), "scheduler.claimer");
        assert_eq!(claimer.component(), "scheduler");
        assert_eq!(Path::from("/scheduler/claimer"), claimer);
        assert_eq!(Path::root().to_string(), "/");
        assert_eq!(Path::root().component(), "root");
    }
}
