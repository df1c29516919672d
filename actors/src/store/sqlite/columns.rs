//! The columns of a row of SQLite: ids are text in lower case.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use crate::store::error::{Inner, Trouble};
use crate::store::rows::Columns;

/// An id as it is kept.
pub(super) fn id(text: &str) -> Inner<Uuid> {
    text.parse().map_err(|_| Trouble::Corrupt(format!("not an id: {text:?}")))
}

impl Columns for SqliteRow {
    fn text_or_none(&self, name: &str) -> Inner<Option<&str>> {
        Ok(self.try_get(name)?)
    }

    fn integer_or_none(&self, name: &str) -> Inner<Option<i64>> {
        Ok(self.try_get(name)?)
    }

    fn id_or_none(&self, name: &str) -> Inner<Option<Uuid>> {
        self.text_or_none(name)?.map(id).transpose()
    }

    fn flag(&self, name: &str) -> Inner<bool> {
        Ok(self.try_get(name)?)
    }

    fn bytes(&self, name: &str) -> Inner<Vec<u8>> {
        Ok(self.try_get(name)?)
    }
}
