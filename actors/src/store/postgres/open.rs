//! Opening the database: its address, its connections, its schema.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, Executor, SqlSafeStr};

use super::{PostgresStore, claim, loads};
use crate::store::call::in_ms;
use crate::store::error::{Inner, Trouble};
use crate::store::{CHANNEL_PENDING_MAX, Store, StoreError};

/// The migrations in their order, compiled in. A file that has been released is never changed again.
const MIGRATIONS: [(i64, &str, &str); 9] = [
    (1, "first", include_str!("../../../migrations/postgres/0001_first.sql")),
    (7, "schedules", include_str!("../../../migrations/postgres/0007_schedules.sql")),
    (8, "jobs", include_str!("../../../migrations/postgres/0008_jobs.sql")),
    (9, "fairness", include_str!("../../../migrations/postgres/0009_fairness.sql")),
    (10, "finished by channel", include_str!("../../../migrations/postgres/0010_finished_by_channel.sql")),
    (11, "queued exactly", include_str!("../../../migrations/postgres/0011_queued_exactly.sql")),
    (12, "who waits", include_str!("../../../migrations/postgres/0012_who_waits.sql")),
    (13, "cheap claims", include_str!("../../../migrations/postgres/0013_cheap_claims.sql")),
    (14, "jobs of schedules", include_str!("../../../migrations/postgres/0014_jobs_of_schedules.sql")),
];
/// Opening and migrating may take this much longer than a call: it happens once, and rewrites tables.
const OPEN_DEADLINE: Duration = Duration::from_secs(60);
/// A connection that was idle for longer than this is asked for a sign of life before it is used.
const TRUSTED_FOR: Duration = Duration::from_secs(5);
/// How long such a sign may take.
const SIGN_WITHIN: Duration = Duration::from_secs(1);

/// What may stand behind the `?` of an address.
const PARAMETERS: [&str; 5] = ["sslmode", "sslrootcert", "sslcert", "sslkey", "options"];

/// How to open a store.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// No call takes longer. Half of it may be spent waiting for a connection.
    pub deadline_ms: u64,
    /// Connections at most, beside the one that listens.
    pub connections: u32,
    /// Deliveries of one channel that wait or are under way at a time; see [`Store::create_deliveries`].
    pub channel_pending_max: u32,
    /// Jobs of one tenant that are not finished and do not run, at most, if the tenant's row does not say otherwise.
    pub tenant_queued_max: u32,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            deadline_ms: 5_000,
            connections: 10,
            channel_pending_max: CHANNEL_PENDING_MAX,
            tenant_queued_max: 100_000,
        }
    }
}

impl PostgresStore {
    /// The store in the database at `url` (`postgres://user:password@host:5432/database`), not connected yet: until
    /// [`Store::prepare`] every call answers [`StoreError::Unavailable`].
    ///
    /// # Errors
    /// [`StoreError::Address`] for a url that is none. It never shows the password.
    pub fn new(url: &str, options: PostgresOptions) -> Result<Self, StoreError> {
        let deadline = Duration::from_millis(options.deadline_ms);
        Ok(Self {
            connect: connect_options(url, deadline)?
                .options([(loads::QUEUED_MAX, options.tenant_queued_max.to_string())]),
            connections_max: options.connections.max(1),
            pool: Arc::default(),
            deadline,
            pending_max: options.channel_pending_max,
            tenant_queued_max: options.tenant_queued_max,
            #[cfg(test)]
            clock: None,
        })
    }

    /// Whether `url` is an address.
    ///
    /// # Errors
    /// [`StoreError::Address`] with the reason.
    pub fn check(url: &str) -> Result<(), StoreError> {
        connect_options(url, Duration::from_secs(1)).map(drop)
    }

    /// The store in the database at `url`, open.
    ///
    /// # Errors
    /// As [`PostgresStore::new`] and [`Store::prepare`].
    pub async fn open(url: &str, options: PostgresOptions) -> Result<Self, StoreError> {
        let store = Self::new(url, options)?;
        store.prepare().await?;
        Ok(store)
    }
}

fn connect_options(url: &str, deadline: Duration) -> Result<PgConnectOptions, StoreError> {
    let refused = |what: String| StoreError::Address { what };
    let parsed = url::Url::parse(url).map_err(|error| refused(error.to_string()))?;
    if !matches!(parsed.scheme(), "postgres" | "postgresql") {
        return Err(refused("it does not begin with \"postgres://\" or \"postgresql://\"".to_owned()));
    }
    if parsed.host_str().is_none_or(str::is_empty) {
        return Err(refused("it names no host".to_owned()));
    }
    if parsed.path().trim_matches('/').is_empty() {
        return Err(refused("it names no database".to_owned()));
    }
    // The driver passes over what it does not know, and a misspelt `sslmode` would be no TLS at all.
    if let Some((name, _)) = parsed.query_pairs().find(|(name, _)| !PARAMETERS.contains(&&**name)) {
        return Err(refused(format!("unknown parameter `{name}`, known are: {}", PARAMETERS.join(", "))));
    }
    let told = |error: sqlx::Error| refused(error.to_string().replace("error with configuration: ", ""));
    let options = PgConnectOptions::from_str(url).map_err(told)?;
    let limit = in_ms(deadline).to_string();
    Ok(options.application_name("perennial").options([
        // The client gives up first, and this ends what it left behind.
        ("statement_timeout", limit.as_str()),
        // A process that is held in the middle of a transaction must not hold up the others.
        ("idle_in_transaction_session_timeout", limit.as_str()),
        // One that is gone without a word is noticed, and its locks are free, after 15 + 3 * 5 s.
        ("tcp_keepalives_idle", "15"),
        ("tcp_keepalives_interval", "5"),
        ("tcp_keepalives_count", "3"),
        ("default_transaction_isolation", "read committed"),
        // Statistics lag behind a queue that fills and empties within a second, and a plan that was made for an empty
        // table wades through a full one. Every statement here has its index, and takes it.
        ("enable_seqscan", "off"),
        ("enable_bitmapscan", "off"),
        ("jit", "off"),
        // For the same reason no other parameters ask for another plan.
        ("plan_cache_mode", "force_generic_plan"),
    ]))
}

/// Connects, and brings the schema up to date.
pub(super) async fn prepare(store: &PostgresStore) -> Result<(), StoreError> {
    let opened = async {
        let patient = store.connect.clone().options([("statement_timeout", in_ms(OPEN_DEADLINE).to_string())]);
        let mut connection = PgConnection::connect_with(&patient).await?;
        migrate(&mut connection).await?;
        // It has said what is to be said.
        let _ = connection.close().await;
        Ok(pool(store).connect_with(store.connect.clone()).await?)
    };
    let late = || StoreError::Timeout { verb: "open", deadline_ms: in_ms(OPEN_DEADLINE) };
    let opened: Inner<PgPool> = tokio::time::timeout(OPEN_DEADLINE, opened).await.map_err(|_| late())?;
    let pool = opened.map_err(|trouble| trouble.of("open"))?;
    store.close().await;
    store.pool.store(Some(Arc::new(pool)));
    Ok(())
}

fn pool(store: &PostgresStore) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(store.connections_max)
        .acquire_timeout(store.deadline / 2)
        .test_before_acquire(false)
        .after_connect(|connection, _| {
            Box::pin(async move { connection.execute(AssertSqlSafe(claim::PREPARE.as_str())).await.map(drop) })
        })
        .before_acquire(|connection, seen| {
            Box::pin(async move {
                match seen.idle_for < TRUSTED_FOR {
                    true => Ok(true),
                    false => is_alive(connection).await.map(|()| true),
                }
            })
        })
        // The pool asks again by itself, but without an end: what hangs here is let go.
        .after_release(|connection, _| Box::pin(async move { is_alive(connection).await.map(|()| true) }))
}

async fn is_alive(connection: &mut PgConnection) -> sqlx::Result<()> {
    let silent = || std::io::Error::from(std::io::ErrorKind::TimedOut);
    tokio::time::timeout(SIGN_WITHIN, connection.ping()).await.map_err(|_| silent())?
}

/// The number of the newest migration that is known here.
fn newest() -> i64 {
    MIGRATIONS.iter().map(|(version, ..)| *version).max().unwrap_or(0)
}

/// Whether this program may use a schema that asks for programs with at least this migration.
pub(super) fn compatible(oldest_program: i64) -> Inner<()> {
    let hint = "a newer program has changed it so that this one cannot use it; start that one, or restore a backup";
    let refused = || StoreError::Schema { found: oldest_program, newest: newest(), hint };
    if oldest_program > newest() { Err(Trouble::Said(refused())) } else { Ok(()) }
}

fn known() -> Migrator {
    let known = MIGRATIONS.map(|(version, name, sql)| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    let mut migrator = Migrator::with_migrations(known.to_vec());
    // The lock is held around the look at what a newer program has done; what that has done is looked at here.
    migrator.set_locking(false).set_ignore_missing(true);
    migrator
}

/// One process at a time: the others wait here, and find the work done.
async fn migrate(connection: &mut PgConnection) -> Inner<()> {
    connection.lock().await.map_err(told)?;
    allow(connection).await?;
    known().run_direct(None, connection, false).await.map_err(told)?;
    connection.unlock().await.map_err(told)
}

/// Refuses a schema that this program does not know and may not use.
async fn allow(connection: &mut PgConnection) -> Inner<()> {
    let exists = "SELECT to_regclass('_sqlx_migrations') IS NOT NULL AND to_regclass('compatibility') IS NOT NULL";
    if !sqlx::query_scalar::<_, bool>(exists).fetch_one(&mut *connection).await? {
        return Ok(());
    }
    let applied = sqlx::query_scalar("SELECT version FROM _sqlx_migrations ORDER BY version");
    let applied: Vec<i64> = applied.fetch_all(&mut *connection).await?;
    let unknown = |version: &&i64| !MIGRATIONS.iter().any(|(known, ..)| known == *version);
    let Some(found) = applied.iter().filter(unknown).min().copied() else { return Ok(()) };
    if found < newest() {
        let hint = "a step of its history is unknown to this program";
        return Err(Trouble::Said(StoreError::Schema { found, newest: newest(), hint }));
    }
    let oldest = sqlx::query_scalar("SELECT oldest_program FROM compatibility");
    compatible(oldest.fetch_one(&mut *connection).await?)?;
    tracing::warn!(found, newest = newest(), "the schema is newer than this program, which may use it");
    Ok(())
}

fn told(error: MigrateError) -> Trouble {
    match error {
        MigrateError::VersionMismatch(found) => {
            let hint = "this step of its history differs from this program's";
            Trouble::Said(StoreError::Schema { found, newest: newest(), hint })
        }
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => Trouble::Sql(error),
        other => Trouble::Sql(sqlx::Error::Migrate(Box::new(other))),
    }
}

#[cfg(test)]
mod upgrade;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::postgres::Run;
    use crate::store::postgres::tests::open_real;

    async fn execute(store: &PostgresStore, sql: &'static str) {
        store.session().await.unwrap().execute(sqlx::query(sql)).await.unwrap();
    }

    /// A store in a schema without anything, not connected.
    pub(super) async fn empty() -> Option<PostgresStore> {
        let store = open_real().await?;
        let drop_all = "DO $$ DECLARE name text; BEGIN
            FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = current_schema() LOOP
                EXECUTE format('DROP TABLE %I CASCADE', name);
            END LOOP;
            FOR name IN SELECT proname FROM pg_proc WHERE pronamespace = current_schema()::regnamespace LOOP
                EXECUTE format('DROP FUNCTION %I', name);
            END LOOP;
        END $$";
        execute(&store, drop_all).await;
        store.close().await;
        Some(store)
    }

    #[tokio::test]
    async fn several_processes_that_start_at_once_make_the_tables_once() {
        let Some(store) = empty().await else { return };
        let processes: Vec<PostgresStore> =
            (0..4).map(|_| PostgresStore { pool: Arc::default(), ..store.clone() }).collect();
        let opened = futures_util::future::join_all(processes.iter().map(Store::prepare)).await;
        assert!(opened.iter().all(Result::is_ok), "{opened:?}");
        processes[3].ping().await.unwrap();
    }

    #[tokio::test]
    async fn a_newer_schema_is_used_if_it_says_so_and_otherwise_refused_by_the_start_and_by_the_ping() {
        let Some(store) = open_real().await else { return };
        let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                     VALUES (999, 'from the future', true, ''::bytea, 0)";
        execute(&store, newer).await;
        store.prepare().await.unwrap();
        store.ping().await.unwrap();
        execute(&store, "UPDATE compatibility SET oldest_program = 999").await;
        for refused in [store.ping().await.unwrap_err(), store.prepare().await.unwrap_err()] {
            let told = format!("the store has schema version 999, this program knows up to {}: a newer", newest());
            assert!(refused.to_string().starts_with(&told), "{refused}");
            assert!(!refused.is_retryable());
        }
    }

    #[test]
    fn an_address_is_refused_with_the_reason_and_never_shows_its_password() {
        for (url, why) in [
            ("mysql://me:s3cret@db/app", "begin with"),
            ("postgres://me:s3cret@db", "no database"),
            ("postgres://me:s3cret@db/app?sslmod=x", "unknown parameter `sslmod`"),
            ("postgres://me:s3cret@db/app?sslmode=x", "ssl"),
        ] {
            let refused = PostgresStore::new(url, PostgresOptions::default()).unwrap_err().to_string();
            assert!(refused.contains(why) && !refused.contains("s3cret"), "{url}: {refused}");
        }
        let store = PostgresStore::new("postgres://me:s3cret@db/app", PostgresOptions::default()).unwrap();
        assert!(!format!("{store:?}").contains("s3cret"));
    }
}
