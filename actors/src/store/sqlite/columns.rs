//! The columns of a row of SQLite: ids are text in lower case. And many rows in one: the driver hands rows over one by one
//! to another thread, each value by itself, which costs more than to find them.

use serde::de::DeserializeOwned;
use serde_json::Value;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use crate::store::error::{Inner, Trouble};
use crate::store::rows::Columns;

/// An id as it is kept.
pub(super) fn id(text: &str) -> Inner<Uuid> {
    text.parse().map_err(|_| Trouble::Corrupt(format!("not an id: {text:?}")))
}

/// What `json_group_array` over one column has answered.
pub(super) fn list<T: DeserializeOwned>(told: &str) -> Inner<Vec<T>> {
    serde_json::from_str(told).map_err(|error| Trouble::Corrupt(error.to_string()))
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

/// A statement that answers the rows of another one in one text, in their order, for [`Rows::parse`]; and its columns.
macro_rules! rows_in_one {
    ($sql:ident, $names:ident: $first:literal $(, $name:literal)*; $rows:literal) => {
        const $names: &[&str] = &[$first $(, $name)*];
        const $sql: &str =
            concat!("SELECT json_group_array(json_array(", $first $(, ", ", $name)*, ")) FROM (", $rows, ")");
    };
}
pub(super) use rows_in_one;

/// Rows that came as one text.
#[derive(Debug)]
pub(super) struct Rows {
    names: &'static [&'static str],
    rows: Vec<Vec<Value>>,
}

/// One of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowOf<'a> {
    names: &'static [&'static str],
    values: &'a [Value],
}

impl Rows {
    /// What such a statement has answered.
    pub(super) fn parse(names: &'static [&'static str], told: &str) -> Inner<Self> {
        Ok(Self { names, rows: list(told)? })
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = RowOf<'_>> {
        self.rows.iter().map(|values| RowOf { names: self.names, values })
    }
}

impl RowOf<'_> {
    fn value(&self, name: &str) -> Inner<&Value> {
        let place = self.names.iter().position(|known| *known == name);
        place.and_then(|place| self.values.get(place)).ok_or_else(|| unfit(name))
    }
}

fn unfit(name: &str) -> Trouble {
    Trouble::Corrupt(format!("{name} is not what it should be"))
}

impl Columns for RowOf<'_> {
    fn text_or_none(&self, name: &str) -> Inner<Option<&str>> {
        match self.value(name)? {
            Value::Null => Ok(None),
            value => value.as_str().map(Some).ok_or_else(|| unfit(name)),
        }
    }

    fn integer_or_none(&self, name: &str) -> Inner<Option<i64>> {
        match self.value(name)? {
            Value::Null => Ok(None),
            value => value.as_i64().map(Some).ok_or_else(|| unfit(name)),
        }
    }

    fn id_or_none(&self, name: &str) -> Inner<Option<Uuid>> {
        self.text_or_none(name)?.map(id).transpose()
    }

    fn flag(&self, name: &str) -> Inner<bool> {
        Ok(self.number::<i64>(name)? != 0)
    }

    /// JSON has none.
    fn bytes(&self, name: &str) -> Inner<Vec<u8>> {
        Err(unfit(name))
    }
}
