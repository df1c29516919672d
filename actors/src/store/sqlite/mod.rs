//! SQLite: the store of one process, in one file.
//!
//! - WAL with `synchronous=FULL`: what was answered survives the loss of power. That is why the verbs take batches.
//! - One connection writes, a few read. A second writer would only wait for the file's lock in a place where no deadline
//!   of ours reaches. Verbs that come at the same time share a transaction, see `write.rs`.
//! - A transaction that writes begins with `BEGIN IMMEDIATE`: one that reads first and then wants to write fails at once
//!   when another process wrote in between, whatever the `busy_timeout`.
//! - Its clock is the machine's, or the one it is given.

mod attempts;
mod batch;
mod channels;
mod claim;
mod columns;
mod deliveries;
mod fires;
mod jobs;
mod list;
mod loads;
mod open;
mod overview;
mod prune;
mod redrive;
mod requests;
mod schedules;
mod settle;
mod standing;
mod tenants;
mod unique;
mod write;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};

pub use open::SqliteOptions;
use write::{Write, Writer};

use super::Result;
use super::call::within;
use super::error::Inner;
use super::port::port;
use super::rows;
use crate::model::{Clock, Millis};

/// A store in an SQLite file. Cheap to clone; all clones are the same store.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    connect: SqliteConnectOptions,
    readers_max: u32,
    pools: Arc<ArcSwapOption<Pools>>,
    clock: Clock,
    deadline: Duration,
    /// Deliveries of one channel that wait or are under way at a time.
    pending_max: u32,
    tenant_queued_max: u32,
}

/// The connections between [`prepare`](super::Store::prepare) and [`close`](super::Store::close).
#[derive(Debug)]
struct Pools {
    writer: Arc<Writer>,
    readers: SqlitePool,
}

impl SqliteStore {
    fn now(&self) -> Millis {
        self.clock.now_ms()
    }

    fn readers(&self) -> Inner<SqlitePool> {
        Ok(self.pools.load().as_ref().ok_or(sqlx::Error::PoolClosed)?.readers.clone())
    }

    async fn write(&self) -> Inner<Write> {
        self.writer()?.begin().await
    }

    /// For what may take long.
    async fn write_alone(&self) -> Inner<Write> {
        self.writer()?.begin_alone().await
    }

    fn writer(&self) -> Inner<Arc<Writer>> {
        Ok(Arc::clone(&self.pools.load().as_ref().ok_or(sqlx::Error::PoolClosed)?.writer))
    }

    async fn within<T>(&self, verb: &'static str, call: impl Future<Output = Inner<T>>) -> Result<T> {
        within(self.deadline, verb, call).await
    }

    async fn touch(&self) -> Inner<()> {
        let write = "INSERT INTO pings (id, at_ms) VALUES (1, ?1) ON CONFLICT (id) DO UPDATE SET at_ms = ?1";
        // On the way of every other verb, so that it cannot be well when they are not.
        let mut transaction = self.write().await?;
        sqlx::query(write).bind(self.now()).execute(&mut *transaction).await?;
        transaction.commit().await?;
        sqlx::query("SELECT at_ms FROM pings").fetch_one(&self.readers()?).await?;
        Ok(())
    }
}

port! {
    SqliteStore,

    async fn now_ms(&self) -> Result<Millis> {
        Ok(self.now())
    }

    async fn close(&self) {
        if let Some(pools) = self.pools.swap(None) {
            pools.readers.close().await;
            if let Some(pools) = Arc::into_inner(pools) {
                pools.writer.close().await;
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
