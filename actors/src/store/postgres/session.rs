//! One connection for one call, and what becomes of it when the call is given up half-way.
//!
//! A call that is dropped while a statement runs leaves a connection of which nobody knows what it is doing: it may
//! hold a transaction open, or have an answer to come that the next user would take for its own. Such a connection is
//! closed and never goes back to the pool; the server rolls back.

use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgConnection, PgRow};
use sqlx::query::Query;
use sqlx::{Connection, Decode, Postgres, Row, SqlSafeStr, Transaction, Type};
use uuid::Uuid;

use crate::store::error::{Inner, Trouble};
use crate::store::rows::Columns;

/// A statement with its parameters.
pub(super) type Statement<'q> = Query<'q, Postgres, PgArguments>;

/// A connection of the pool, for statements that are each a transaction of their own.
pub(super) struct Session {
    connection: PoolConnection<Postgres>,
    /// Whether a statement runs: then nobody knows what this connection is doing.
    is_busy: AtomicBool,
}

/// A transaction on a session. Dropped, it is rolled back when its connection goes back to the pool.
pub(super) struct Write<'s> {
    transaction: Transaction<'s, Postgres>,
    is_busy: &'s AtomicBool,
}

impl Session {
    pub(super) fn new(connection: PoolConnection<Postgres>) -> Self {
        Self { connection, is_busy: AtomicBool::new(false) }
    }

    /// Begins a transaction with this statement: `BEGIN`, and what else belongs to it. If that fails, the connection is
    /// closed: the `BEGIN` may have been obeyed and the rest not, and of such a transaction the driver knows nothing.
    pub(super) async fn begin_with(&mut self, statement: impl SqlSafeStr) -> Inner<Write<'_>> {
        let Self { connection, is_busy } = self;
        let transaction = whole(is_busy, connection.begin_with(statement)).await;
        let transaction = transaction.inspect_err(|_| is_busy.store(true, Ordering::Relaxed))?;
        Ok(Write { transaction, is_busy })
    }

    /// Begins a transaction that may write.
    pub(super) async fn begin(&mut self) -> Inner<Write<'_>> {
        self.begin_with("BEGIN").await
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.is_busy.load(Ordering::Relaxed) {
            self.connection.close_on_drop();
        }
    }
}

impl Write<'_> {
    /// Makes it all last.
    pub(super) async fn commit(self) -> Inner<()> {
        Ok(whole(self.is_busy, self.transaction.commit()).await?)
    }

    /// Undoes it all, and lets go of what was locked.
    pub(super) async fn rollback(self) -> Inner<()> {
        Ok(whole(self.is_busy, self.transaction.rollback()).await?)
    }

    /// Makes it last or undoes it, as the answer is, before that is told. A transaction that is only dropped is undone
    /// a moment later, and whoever comes next would find its rows locked.
    pub(super) async fn end<T>(self, answer: Inner<T>) -> Inner<T> {
        match answer {
            Ok(answer) => self.commit().await.map(|()| answer),
            Err(trouble) => {
                // Why it failed is told, and not that the rollback of it may have failed too.
                let _ = self.rollback().await;
                Err(trouble)
            }
        }
    }
}

/// What runs statements.
pub(super) trait Run {
    /// The connection, and the mark that it is in use.
    fn parts(&mut self) -> (&mut PgConnection, &AtomicBool);

    /// All rows of the answer.
    async fn all(&mut self, statement: Statement<'_>) -> Inner<Vec<PgRow>> {
        let (connection, is_busy) = self.parts();
        Ok(whole(is_busy, statement.fetch_all(connection)).await?)
    }

    /// The first row of the answer, if there is one.
    async fn optional(&mut self, statement: Statement<'_>) -> Inner<Option<PgRow>> {
        let (connection, is_busy) = self.parts();
        Ok(whole(is_busy, statement.fetch_optional(connection)).await?)
    }

    /// The row of the answer.
    async fn one(&mut self, statement: Statement<'_>) -> Inner<PgRow> {
        let (connection, is_busy) = self.parts();
        Ok(whole(is_busy, statement.fetch_one(connection)).await?)
    }

    /// How many rows it changed.
    async fn execute(&mut self, statement: Statement<'_>) -> Inner<u64> {
        let (connection, is_busy) = self.parts();
        Ok(whole(is_busy, statement.execute(connection)).await?.rows_affected())
    }
}

impl Run for Session {
    fn parts(&mut self) -> (&mut PgConnection, &AtomicBool) {
        (&mut self.connection, &self.is_busy)
    }
}

impl Run for Write<'_> {
    fn parts(&mut self) -> (&mut PgConnection, &AtomicBool) {
        (&mut self.transaction, self.is_busy)
    }
}

/// Marks the connection as busy until the answer is there, whole.
async fn whole<T>(is_busy: &AtomicBool, answer: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    is_busy.store(true, Ordering::Relaxed);
    let answer = answer.await;
    is_busy.store(false, Ordering::Relaxed);
    answer
}

/// What a column holds. What is of another type is damage, as what is out of its range.
fn read<'r, T: Decode<'r, Postgres> + Type<Postgres>>(row: &'r PgRow, name: &str) -> Inner<T> {
    row.try_get(name).map_err(|error| Trouble::Corrupt(error.to_string()))
}

impl Columns for PgRow {
    fn text_or_none(&self, name: &str) -> Inner<Option<&str>> {
        read(self, name)
    }

    fn integer_or_none(&self, name: &str) -> Inner<Option<i64>> {
        read(self, name)
    }

    fn id_or_none(&self, name: &str) -> Inner<Option<Uuid>> {
        read(self, name)
    }

    fn flag(&self, name: &str) -> Inner<bool> {
        read(self, name)
    }

    fn bytes(&self, name: &str) -> Inner<Vec<u8>> {
        read(self, name)
    }
}

#[cfg(test)]
mod tests {
    use crate::store::postgres::tests::open_real;

    use super::*;

    #[tokio::test]
    async fn a_transaction_of_which_only_the_beginning_was_obeyed_spoils_no_later_call() {
        let Some(store) = open_real().await else { return };
        for _ in 0..20 {
            let mut session = store.session().await.unwrap();
            assert!(session.begin_with("BEGIN; SELECT 1 / 0").await.is_err());
        }
        for _ in 0..20 {
            store.session().await.unwrap().one(sqlx::query("SELECT 1")).await.unwrap();
        }
    }
}
