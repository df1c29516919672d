//! The service's database file, opened from outside as an operator's tool would: to count what is really there, to add
//! a tenant, to hold its write lock.

use std::time::Duration;

use sha2::{Digest, Sha256};
use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row, SqliteConnection};

use crate::{Client, Home, Service};

/// A connection of our own to a service's database.
pub struct Store(SqliteConnection);

/// The write lock of a database, held until it is released.
pub struct WriteLock(SqliteConnection);

impl Store {
    /// Opens the one database below `data/` of that directory.
    pub async fn open(home: &Home) -> Store {
        let folder = std::fs::read_dir(home.path().join("data")).expect("the service has made its folder");
        let files: Vec<_> = folder
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|ending| ending == "db"))
            .collect();
        let [file] = files.as_slice() else { panic!("one database was expected, not {files:?}") };
        let options = SqliteConnectOptions::new().filename(file).busy_timeout(Duration::from_secs(10));
        Store(options.connect().await.unwrap())
    }

    /// The number that a query answers with.
    pub async fn number(&mut self, query: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(&mut self.0).await.unwrap()
    }

    /// What a query answers with, all of it text; NULL is empty.
    pub async fn texts(&mut self, query: &str) -> Vec<Vec<String>> {
        let rows = sqlx::query(AssertSqlSafe(query)).fetch_all(&mut self.0).await.unwrap();
        let text = |row: &SqliteRow, n| row.get::<Option<String>, _>(n).unwrap_or_default();
        rows.iter().map(|row| (0..row.len()).map(|n| text(row, n)).collect()).collect()
    }

    /// Carries out one statement.
    pub async fn execute(&mut self, statement: &str) {
        sqlx::query(AssertSqlSafe(statement)).execute(&mut self.0).await.unwrap();
    }

    /// Takes the write lock, so that every write of the service has to wait.
    pub async fn lock(mut self) -> WriteLock {
        sqlx::query("BEGIN IMMEDIATE").execute(&mut self.0).await.unwrap();
        WriteLock(self.0)
    }

    /// Adds a tenant with this key.
    pub async fn add_tenant(&mut self, id: &str, key: &str) {
        let hash: String = Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect();
        let query = sqlx::query("INSERT INTO tenants (id, key_hash, created_at_ms) VALUES (?, ?, 0)");
        query.bind(id).bind(hash).execute(&mut self.0).await.unwrap();
    }
}

impl WriteLock {
    /// Gives the lock back, nothing written.
    pub async fn release(mut self) {
        sqlx::query("ROLLBACK").execute(&mut self.0).await.unwrap();
        self.0.close().await.unwrap();
    }
}

impl Service {
    /// A client that speaks for a new tenant of that name.
    pub async fn tenant(&self, id: &str) -> Client {
        let key = format!("pk_{id}_of_the_tests");
        Store::open(self.home()).await.add_tenant(id, &key).await;
        self.api().with_key(&key)
    }
}
