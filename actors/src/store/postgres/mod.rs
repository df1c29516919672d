//! PostgreSQL: the store of any number of processes.
//!
//! - **Time** is the database's, asked for in the statement that needs it.
//! - **One statement** for a verb wherever that can be: it needs no transaction, and a process that is suspended between
//!   two statements holds nothing that others wait for.
//! - **Locks** are taken in one order by all (channels before deliveries, requests before their number, unique keys before
//!   the lock of a tenant's queued jobs and that before their number, several rows of one table by their ids), and work that
//!   any process may do is taken with `SKIP LOCKED`. So nobody waits in a circle.
//! - **Isolation** is `READ COMMITTED`: each statement sees what was committed when it began. What must be seen together is
//!   asked for in one statement, or locked first.
//! - Needs PostgreSQL 14 or newer, reached directly: a pooler that hands a connection on after each transaction breaks
//!   prepared statements and `LISTEN`.

mod attempts;
mod channels;
mod claim;
mod columns;
#[cfg(test)]
mod damage;
mod deliveries;
#[cfg(test)]
mod dropped;
mod fires;
mod jobs;
mod list;
mod loads;
#[cfg(test)]
mod locks;
#[cfg(test)]
mod newer;
mod open;
mod overview;
#[cfg(test)]
mod plans;
mod prune;
mod redrive;
mod requests;
mod schedules;
mod session;
mod settle;
mod standing;
mod tenants;
#[cfg(test)]
mod turns;
mod unique;
mod wakeups;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use sqlx::postgres::{PgConnectOptions, PgPool};

pub use open::PostgresOptions;
use session::{Run, Session, Write};

use super::call::within;
use super::error::Inner;
use super::port::port;
use super::rows::Columns;
use super::{Hear, Result, Wakeups};
use crate::model::Millis;

/// A store in a database of PostgreSQL. Cheap to clone; all clones are the same store.
#[derive(Clone)]
pub struct PostgresStore {
    connect: PgConnectOptions,
    connections_max: u32,
    pool: Arc<ArcSwapOption<PgPool>>,
    deadline: Duration,
    /// Deliveries of one channel that wait or are under way at a time.
    pending_max: u32,
    tenant_queued_max: u32,
    /// What the database takes for the time, in tests: each connection is told when it is taken.
    #[cfg(test)]
    clock: Option<crate::model::Clock>,
}

impl fmt::Debug for PostgresStore {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, port) = (self.connect.get_host(), self.connect.get_port());
        f.debug_struct("PostgresStore").field("host", &host).field("port", &port).finish_non_exhaustive()
    }
}

impl PostgresStore {
    /// A connection for one call.
    async fn session(&self) -> Inner<Session> {
        let pool = self.pool.load_full().ok_or(sqlx::Error::PoolClosed)?;
        let session = Session::new(pool.acquire().await?);
        #[cfg(test)]
        let session = tests::set_clock(session, self.clock.as_ref()).await?;
        Ok(session)
    }

    async fn within<T>(&self, verb: &'static str, call: impl Future<Output = Inner<T>>) -> Result<T> {
        within(self.deadline, verb, call).await
    }

    async fn time(&self) -> Inner<Millis> {
        self.session().await?.one(sqlx::query("SELECT now_ms() AS now_ms")).await?.number("now_ms")
    }

    /// On the way of every other verb, so that it cannot be well when they are not.
    async fn touch(&self) -> Inner<()> {
        let write = "INSERT INTO pings (id, at_ms) VALUES (1, now_ms()) ON CONFLICT (id) DO UPDATE SET at_ms = now_ms()
                     RETURNING (SELECT oldest_program FROM compatibility) AS oldest_program";
        let row = self.session().await?.one(sqlx::query(write)).await?;
        open::compatible(row.number("oldest_program")?)
    }
}

/// A text as PostgreSQL can keep it: NUL it cannot, and keeps U+FFFD in its place.
fn clean(text: impl Into<String>) -> String {
    let text = text.into();
    if text.contains('\0') { text.replace('\0', "\u{FFFD}") } else { text }
}

/// A span of time that can be added to the time: 100,000 years at most.
fn span(ms: u64) -> i64 {
    super::rows::signed(ms).min(3_155_760_000_000_000)
}

port! {
    PostgresStore,

    async fn now_ms(&self) -> Result<Millis> {
        self.within("now_ms", self.time()).await
    }

    async fn exchange(&self, told: &Wakeups, hear: Hear<'_>) -> Result<()> {
        wakeups::exchange(self, told, hear).await
    }

    async fn close(&self) {
        if let Some(pool) = self.pool.swap(None) {
            pool.close().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::model::Clock;
    use crate::store::contract::{Fixture, PENDING_MAX, START_MS, contract_tests};

    /// Where the full test command has started a server: the address of a database that may be filled.
    const SERVER: &str = "TEST_POSTGRES";

    /// The time by the setting of the session, which [`set_clock`] makes.
    const TOLD_TIME: &str = "CREATE OR REPLACE FUNCTION now_ms() RETURNS bigint LANGUAGE sql VOLATILE
                             AS $$ SELECT current_setting('tests.now_ms')::bigint $$";

    pub(super) async fn set_clock(mut session: Session, clock: Option<&Clock>) -> Inner<Session> {
        if let Some(clock) = clock {
            let now = sqlx::query("SELECT set_config('tests.now_ms', $1, false)").bind(clock.now_ms().to_string());
            session.execute(now).await?;
        }
        Ok(session)
    }

    /// An empty store in a schema of its own, by the clock of its server; none, said aloud, if there is no server.
    pub(super) async fn open_real() -> Option<PostgresStore> {
        open_real_within(20_000).await
    }

    /// The same, with this deadline of every call.
    pub(super) async fn open_real_within(deadline_ms: u64) -> Option<PostgresStore> {
        let Ok(server) = std::env::var(SERVER) else {
            println!("skipped: no PostgreSQL in {SERVER} (`cargo xtask test` starts one)");
            return None;
        };
        let schema = format!("t_{}", Uuid::new_v4().simple());
        let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect(&server).await.unwrap();
        let create = sqlx::AssertSqlSafe(format!("CREATE SCHEMA {schema}"));
        sqlx::query(create).execute(&mut connection).await.unwrap();
        let joint = if server.contains('?') { '&' } else { '?' };
        let url = format!("{server}{joint}options=-c%20search_path%3D{schema}");
        let options = PostgresOptions { deadline_ms, channel_pending_max: PENDING_MAX, ..PostgresOptions::default() };
        Some(PostgresStore::open(&url, options).await.unwrap())
    }

    /// An empty store, with a clock that stands still.
    pub(super) async fn open() -> Option<Fixture> {
        Some(open_with_clock().await?.1)
    }

    /// The same, and what the contract's helpers need of it.
    pub(super) async fn open_with_clock() -> Option<(PostgresStore, Fixture)> {
        let mut store = open_real().await?;
        let clock = Clock::manual(START_MS);
        store.session().await.unwrap().execute(sqlx::query(TOLD_TIME)).await.unwrap();
        store.clock = Some(clock.clone());
        let shared = Arc::new(store.clone());
        Some((store, Fixture { store: shared, clock, owner: Uuid::now_v7(), _keep: Box::new(()) }))
    }

    contract_tests!(super::open);
}
