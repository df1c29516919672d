//! Opening the file: its directory, its pragmas, its schema.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, SqlSafeStr};

use super::write::Writer;
use super::{Pools, SqliteStore};
use crate::model::Clock;
use crate::store::error::Trouble;
use crate::store::{CHANNEL_PENDING_MAX, Store, StoreError};

/// The migrations in their order, compiled in. A file that has been released is never changed again.
const MIGRATIONS: [(i64, &str, &str); 11] = [
    (1, "first", include_str!("../../../migrations/sqlite/0001_first.sql")),
    (2, "tenants", include_str!("../../../migrations/sqlite/0002_tenants.sql")),
    (3, "lists", include_str!("../../../migrations/sqlite/0003_lists.sql")),
    (4, "idempotency", include_str!("../../../migrations/sqlite/0004_idempotency.sql")),
    (5, "channels", include_str!("../../../migrations/sqlite/0005_channels.sql")),
    (6, "request context", include_str!("../../../migrations/sqlite/0006_request_context.sql")),
    (7, "schedules", include_str!("../../../migrations/sqlite/0007_schedules.sql")),
    (8, "jobs", include_str!("../../../migrations/sqlite/0008_jobs.sql")),
    (9, "fairness", include_str!("../../../migrations/sqlite/0009_fairness.sql")),
    (10, "finished by channel", include_str!("../../../migrations/sqlite/0010_finished_by_channel.sql")),
    (11, "jobs of schedules", include_str!("../../../migrations/sqlite/0011_jobs_of_schedules.sql")),
];
/// Opening and migrating may take this much longer than a call: it happens once, and rewrites tables.
const OPEN_DEADLINE: Duration = Duration::from_secs(60);

/// How to open a store.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// No call takes longer. Half of it may be spent waiting for another process that holds the file.
    pub deadline_ms: u64,
    /// Connections that read, beside the one that writes.
    pub readers: u32,
    /// Deliveries of one channel that wait or are under way at a time; see [`Store::create_deliveries`].
    pub channel_pending_max: u32,
    /// Where the time comes from.
    pub clock: Clock,
    /// Jobs of one tenant that are not finished and do not run, at most, if the tenant's row does not say otherwise.
    pub tenant_queued_max: u32,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            deadline_ms: 5_000,
            readers: 4,
            channel_pending_max: CHANNEL_PENDING_MAX,
            tenant_queued_max: 100_000,
            clock: Clock::system(),
        }
    }
}

impl SqliteStore {
    /// The store in the file at `url` (`sqlite://data/perennial.db`), not opened yet: until [`Store::prepare`] every call
    /// answers [`StoreError::Unavailable`].
    ///
    /// # Errors
    /// [`StoreError::Address`] for a url that is none or means a database in memory.
    pub fn new(url: &str, options: SqliteOptions) -> Result<Self, StoreError> {
        let deadline = Duration::from_millis(options.deadline_ms);
        let (connect, pools) = (connect_options(url, deadline)?, Arc::default());
        let (readers_max, pending_max) = (options.readers.max(1), options.channel_pending_max);
        let tenant_queued_max = options.tenant_queued_max;
        Ok(Self { connect, readers_max, pools, clock: options.clock, deadline, pending_max, tenant_queued_max })
    }

    /// The store in the file at `url`, open.
    ///
    /// # Errors
    /// As [`SqliteStore::new`] and [`Store::prepare`].
    pub async fn open(url: &str, options: SqliteOptions) -> Result<Self, StoreError> {
        let store = Self::new(url, options)?;
        store.prepare().await?;
        Ok(store)
    }
}

/// Creates the file and its directory if need be, and brings its schema up to date.
pub(super) async fn prepare(store: &SqliteStore) -> Result<(), StoreError> {
    create_directory(store.connect.get_filename()).await?;
    let opened = async {
        let (connect, deadline) = (store.connect.clone(), store.deadline);
        let mut writer = connect.clone().create_if_missing(true).connect().await?;
        migrate(&mut writer).await?;
        let writer = Arc::new(Writer::new(connect.clone(), writer));
        let readers = pool(deadline).max_connections(store.readers_max).connect_with(connect.read_only(true)).await?;
        Ok(Pools { writer, readers })
    };
    let pools = tokio::time::timeout(OPEN_DEADLINE, opened).await.unwrap_or(Err(Opening::Late))?;
    store.close().await;
    store.pools.store(Some(Arc::new(pools)));
    Ok(())
}

/// What may go wrong while opening.
enum Opening {
    Trouble(sqlx::Error),
    Schema(StoreError),
    Late,
}

impl From<sqlx::Error> for Opening {
    fn from(error: sqlx::Error) -> Self {
        Self::Trouble(error)
    }
}

impl From<Opening> for StoreError {
    fn from(opening: Opening) -> Self {
        match opening {
            Opening::Trouble(error) => Trouble::Sql(error).of("open"),
            Opening::Schema(error) => error,
            Opening::Late => Self::Timeout { verb: "open", deadline_ms: OPEN_DEADLINE.as_millis() as u64 },
        }
    }
}

fn connect_options(url: &str, deadline: Duration) -> Result<SqliteConnectOptions, StoreError> {
    let refused = |what: String| StoreError::Address { what };
    let Some(path) = url.strip_prefix("sqlite:") else {
        return Err(refused(format!("{url:?} does not begin with \"sqlite:\"")));
    };
    if path.contains(":memory:") || path.contains("mode=memory") || path.trim_start_matches('/').is_empty() {
        return Err(refused(format!("{url:?} names no file, expected one such as \"sqlite://data/perennial.db\"")));
    }
    let options = SqliteConnectOptions::from_str(url).map_err(|error| refused(format!("{url:?}: {error}")))?;
    Ok(options
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(deadline / 2)
        .thread_name(|number| format!("store-{number}")))
}

fn pool(deadline: Duration) -> SqlitePoolOptions {
    // A connection to a file does not go stale: no test before use, no end of life.
    SqlitePoolOptions::new().acquire_timeout(deadline).test_before_acquire(false).idle_timeout(None).max_lifetime(None)
}

async fn create_directory(file: &Path) -> Result<(), StoreError> {
    let Some(directory) = file.parent().filter(|directory| !directory.as_os_str().is_empty()) else {
        return Ok(());
    };
    tokio::fs::create_dir_all(directory).await.map_err(|error| {
        let told = std::io::Error::new(error.kind(), format!("create the directory {}: {error}", directory.display()));
        StoreError::Unavailable { verb: "open", source: Box::new(told) }
    })
}

fn known() -> Vec<Migration> {
    let known = MIGRATIONS.map(|(version, name, sql)| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    known.to_vec()
}

async fn migrate(writer: &mut SqliteConnection) -> Result<(), Opening> {
    let newest = MIGRATIONS.map(|(version, ..)| version).into_iter().max().unwrap_or(0);
    let told = |found, hint| Opening::Schema(StoreError::Schema { found, newest, hint });
    Migrator::with_migrations(known()).run_direct(None, writer, false).await.map_err(|error| match error {
        MigrateError::VersionMissing(found) if found > newest => {
            told(found, "a newer program wrote it; start that one, or restore a backup")
        }
        MigrateError::VersionMissing(found) => told(found, "a step of its history is unknown to this program"),
        MigrateError::VersionMismatch(found) => told(found, "this step of its history differs from this program's"),
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => Opening::Trouble(error),
        other => Opening::Trouble(sqlx::Error::Migrate(Box::new(other))),
    })
}

#[cfg(test)]
mod upgrade;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::tests::execute;

    fn url(directory: &tempfile::TempDir) -> String {
        format!("sqlite://{}/deep/er/store.db", directory.path().display())
    }

    #[tokio::test]
    async fn the_file_and_its_directory_are_made_and_found_again() {
        let directory = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let store = SqliteStore::open(&url(&directory), SqliteOptions::default()).await.unwrap();
            store.ping().await.unwrap();
            store.close().await;
            let closed = store.ping().await.unwrap_err();
            assert!(closed.is_retryable(), "{closed}");
        }
    }

    #[tokio::test]
    async fn the_pragmas_are_in_force() {
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&url(&directory), SqliteOptions::default()).await.unwrap();
        let pragma = async |sql: &'static str| {
            sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut *store.write().await.unwrap()).await.unwrap()
        };
        assert_eq!(pragma("PRAGMA synchronous").await, 2);
        assert_eq!(pragma("PRAGMA foreign_keys").await, 1);
        assert_eq!(pragma("PRAGMA busy_timeout").await, 2_500);
        let mode: String =
            sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&store.readers().ok().unwrap()).await.unwrap();
        assert_eq!(mode, "wal");
    }

    #[tokio::test]
    async fn a_commit_that_failed_costs_its_own_call_only() {
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&url(&directory), SqliteOptions::default()).await.unwrap();
        let (tenant, key) = (crate::model::TenantId::new("demo").unwrap(), crate::store::KeyHash::of("pk_one"));
        // What SQLite does by itself when the disk is full: the transaction is gone before its COMMIT.
        let mut write = store.write().await.unwrap_or_else(|_| panic!("no transaction"));
        sqlx::query("ROLLBACK").execute(&mut *write).await.unwrap();
        assert!(write.commit().await.is_err());
        store.create_tenant(&tenant, &key).await.unwrap();
        store.ping().await.unwrap();
        assert_eq!(store.list_tenants(None, 9).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_full_file_refuses_a_call_and_serves_again_when_there_is_room() {
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&url(&directory), SqliteOptions::default()).await.unwrap();
        let pragma = async |sql: &'static str| execute(&store, sqlx::query(sql)).await;
        let job = || {
            let mut job = crate::store::contract::new_job("demo");
            job.payload = serde_json::json!("x".repeat(1_000_000));
            job
        };
        // The least that it takes is what it has.
        pragma("PRAGMA max_page_count = 1").await;
        let full = store.enqueue(vec![job()]).await.unwrap_err();
        assert!(full.to_string().contains("full"), "{full}");
        store.ping().await.unwrap();
        pragma("PRAGMA max_page_count = 1000000").await;
        store.enqueue(vec![job()]).await.unwrap();
    }

    #[tokio::test]
    async fn what_was_not_committed_is_not_answered_as_kept() {
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&url(&directory), SqliteOptions::default()).await.unwrap();
        // A debt that is only looked at by the commit, after the row was answered.
        let mut spoil = vec![
            "CREATE TABLE debts (of_channel TEXT REFERENCES channels (id) DEFERRABLE INITIALLY DEFERRED)".to_owned(),
        ];
        for table in ["channels", "schedules", "pings"] {
            spoil.push(format!(
                "CREATE TRIGGER spoil_{table} AFTER INSERT ON {table} BEGIN INSERT INTO debts VALUES ('nobody'); END"
            ));
        }
        for sql in spoil {
            execute(&store, sqlx::query(sqlx::AssertSqlSafe(sql))).await;
        }
        let tenant = crate::model::TenantId::new("demo").unwrap();
        let channel = crate::store::NewChannel {
            id: crate::model::new_id(),
            tenant: tenant.clone(),
            kind: "webhook".to_owned(),
            url: "https://example.com/".to_owned(),
            secret: "whsec_c2VjcmV0".to_owned().into(),
            chat: None,
        };
        let every = crate::jobs::Cadence::every(60_000).unwrap();
        let schedule = crate::store::NewSchedule::new(tenant, every, "publish", serde_json::json!({}));
        assert!(store.create_channel(channel).await.is_err());
        assert!(store.create_schedule(schedule).await.is_err());
        assert!(store.ping().await.is_err(), "the ping answered though it could not be committed");
    }

    #[tokio::test]
    async fn a_file_of_a_newer_program_is_refused_clearly() {
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&url(&directory), SqliteOptions::default()).await.unwrap();
        let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                     VALUES (999, 'from the future', 1, x'00', 0)";
        execute(&store, sqlx::query(newer)).await;
        store.close().await;
        let refused = SqliteStore::open(&url(&directory), SqliteOptions::default()).await.unwrap_err();
        let text = refused.to_string();
        let newest = MIGRATIONS.last().unwrap().0;
        let told = format!("the store has schema version 999, this program knows up to {newest}: a newer");
        assert!(text.starts_with(&told), "{text}");
        assert!(!refused.is_retryable());
    }

    #[tokio::test]
    async fn a_file_that_is_no_database_is_corrupt() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.db");
        std::fs::write(&path, "this is a letter to my mother ".repeat(200)).unwrap();
        let url = format!("sqlite://{}", path.display());
        let refused = SqliteStore::open(&url, SqliteOptions::default()).await.unwrap_err();
        assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused}");
    }

    #[tokio::test]
    async fn an_address_that_names_no_file_is_refused() {
        for bad in ["postgres://x/y", "sqlite::memory:", "sqlite://", "sqlite://x?mode=memory", "sqlite://x?mode=7"] {
            let refused = SqliteStore::open(bad, SqliteOptions::default()).await.unwrap_err();
            assert!(matches!(refused, StoreError::Address { .. }), "{bad}: {refused}");
        }
    }

    #[tokio::test]
    async fn a_directory_that_cannot_be_made_is_named() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("deep"), "a file in the way").unwrap();
        let refused = SqliteStore::open(&url(&directory), SqliteOptions::default()).await.unwrap_err();
        assert!(refused.to_string().contains("create the directory"), "{refused}");
    }

    #[tokio::test]
    async fn a_file_locked_by_another_process_ends_the_call_in_time() {
        let directory = tempfile::tempdir().unwrap();
        let options = SqliteOptions { deadline_ms: 200, ..SqliteOptions::default() };
        let store = SqliteStore::open(&url(&directory), options.clone()).await.unwrap();
        let other = SqliteStore::open(&url(&directory), options).await.unwrap();
        let held = other.write().await.unwrap_or_else(|_| panic!("no lock"));
        let busy = store.ping().await.unwrap_err();
        assert!(busy.is_retryable(), "{busy}");
        let soon = tokio::time::Instant::now() + Duration::from_millis(100);
        let cut = telemetry::context::with_deadline(soon, store.ping()).await.unwrap_err();
        assert_eq!(cut.kind(), "out_of_time", "the caller has less time than the store: {cut}");
        drop(held);
        other.ping().await.unwrap();
        store.ping().await.unwrap();
    }
}
