//! Where a row stands in a list.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::model::Millis;

/// A row's place in a list that is sorted by time of creation, and by id where that is the same. No two rows have the
/// same one, and a row keeps its own: "what comes after this place" is always the same question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// When the row was accepted.
    pub at_ms: Millis,
    /// Its id.
    pub id: Uuid,
}
