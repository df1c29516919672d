//! What may go wrong with a store, told by what the caller can do about it.

use std::error::Error;

use sqlx::error::DatabaseError;
use sqlx::postgres::PgDatabaseError;

use super::fair::JOBS_QUEUED;

/// Why a verb did not happen. `verb` is the name of the call.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store is away, busy, full or read-only. Try again later.
    #[error("{verb}: the store is unavailable: {source}")]
    Unavailable {
        /// What was asked.
        verb: &'static str,
        /// What the driver said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The call took too long. It may have happened or not: fences and unique keys make it safe to try again.
    #[error("{verb}: no answer of the store within {deadline_ms} ms")]
    Timeout {
        /// What was asked.
        verb: &'static str,
        /// How long the caller waited.
        deadline_ms: u64,
    },
    /// The caller's own time is up ([`telemetry::context::deadline`]). It may have happened or not, as with `Timeout`.
    #[error("{verb}: the caller's time is up")]
    OutOfTime {
        /// What was asked.
        verb: &'static str,
    },
    /// It contradicts what is kept already.
    #[error("{verb}: {what}")]
    Conflict {
        /// What was asked.
        verb: &'static str,
        /// With what it collides.
        what: String,
    },
    /// It names something that is not there, or is another tenant's.
    #[error("{verb}: {what}")]
    NotFound {
        /// What was asked.
        verb: &'static str,
        /// What is missing.
        what: String,
    },
    /// The tenant, or its channel, has as much as it may have; there is room again when some of it is gone.
    #[error("{verb}: {what}")]
    Limit {
        /// What was asked.
        verb: &'static str,
        /// The limit's name.
        limit: &'static str,
        /// How much it may have.
        what: String,
    },
    /// What is kept cannot be read: a damaged file, or a row that this program did not write.
    #[error("{verb}: the store is damaged: {what}")]
    Corrupt {
        /// What was asked.
        verb: &'static str,
        /// What could not be read.
        what: String,
    },
    /// The data were written by another version of the program.
    #[error("the store has schema version {found}, this program knows up to {newest}: {hint}")]
    Schema {
        /// Version of the kept schema that does not fit.
        found: i64,
        /// Newest version known here.
        newest: i64,
        /// What to do.
        hint: &'static str,
    },
    /// The address of the store makes no sense.
    #[error("not a store address: {what}")]
    Address {
        /// What is wrong with it, and what would be right.
        what: String,
    },
}

impl StoreError {
    /// Whether the same call may succeed later, without anyone's doing.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Timeout { .. } | Self::OutOfTime { .. } | Self::Limit { .. })
    }

    /// A short word for metrics and logs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "unavailable",
            Self::Timeout { .. } => "timeout",
            Self::OutOfTime { .. } => "out_of_time",
            Self::Conflict { .. } => "conflict",
            Self::NotFound { .. } => "not_found",
            Self::Limit { .. } => "limit",
            Self::Corrupt { .. } => "corrupt",
            Self::Schema { .. } => "schema",
            Self::Address { .. } => "address",
        }
    }
}

/// What a backend's own code answers, before the verb is added.
pub(super) type Inner<T> = Result<T, Trouble>;

/// What a backend's own code may say; the verb is added at the edge, once.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The driver's error.
    Sql(sqlx::Error),
    /// See [`StoreError::Conflict`].
    Conflict(String),
    /// See [`StoreError::NotFound`].
    NotFound(String),
    /// See [`StoreError::Limit`].
    Limit(&'static str, String),
    /// See [`StoreError::Corrupt`].
    Corrupt(String),
    /// What is the same for every verb.
    Said(StoreError),
}

impl From<sqlx::Error> for Trouble {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

impl Trouble {
    /// The error for the caller of `verb`.
    pub(super) fn of(self, verb: &'static str) -> StoreError {
        match self {
            Self::Conflict(what) => StoreError::Conflict { verb, what },
            Self::NotFound(what) => StoreError::NotFound { verb, what },
            Self::Limit(limit, what) => StoreError::Limit { verb, limit, what },
            Self::Corrupt(what) => StoreError::Corrupt { verb, what },
            Self::Said(error) => error,
            Self::Sql(error) => driver_error(verb, error),
        }
    }
}

/// The SQLSTATE by which `0011_queued_exactly.sql` refuses jobs.
const TOO_MANY_QUEUED: &str = "PN001";

fn driver_error(verb: &'static str, error: sqlx::Error) -> StoreError {
    match &error {
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnNotFound(_) => {
            StoreError::Corrupt { verb, what: error.to_string() }
        }
        sqlx::Error::Database(said) if said.code().as_deref() == Some(TOO_MANY_QUEUED) => {
            StoreError::Limit { verb, limit: JOBS_QUEUED, what: said.message().to_owned() }
        }
        sqlx::Error::Database(said) if said.kind() != sqlx::error::ErrorKind::Other => {
            StoreError::Conflict { verb, what: said.message().to_owned() }
        }
        sqlx::Error::Database(said) if is_damaged(&**said) => {
            StoreError::Corrupt { verb, what: said.message().to_owned() }
        }
        _ => StoreError::Unavailable { verb, source: Box::new(error) },
    }
}

fn is_damaged(said: &dyn DatabaseError) -> bool {
    match said.try_downcast_ref::<PgDatabaseError>() {
        Some(postgres) => is_damage_in_postgres(postgres.code()),
        None => is_damage(said.code().as_deref()),
    }
}

/// Classes of SQLSTATE that no second try changes: data that are damaged (XX001, XX002), and tables, columns and functions
/// that are not there (42, but for a right that is missing: 42501). What may pass is all else: a deadlock (40P01), a server
/// that starts or stops (57P01 to 57P03), one that has no room (53), one that only reads (25006).
fn is_damage_in_postgres(code: &str) -> bool {
    matches!(code, "XX001" | "XX002") || (code.starts_with("42") && code != "42501")
}

/// SQLite's primary result codes CORRUPT (11) and NOTADB (26); the extended codes keep them in the low byte.
fn is_damage(code: Option<&str>) -> bool {
    code.and_then(|code| code.parse::<u32>().ok()).is_some_and(|code| matches!(code & 0xff, 11 | 26))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_pass_by_itself_is_retryable() {
        let away = Trouble::Sql(sqlx::Error::PoolTimedOut).of("claim");
        assert!(away.is_retryable(), "{away}");
        assert!(StoreError::Timeout { verb: "claim", deadline_ms: 5 }.is_retryable());
        let damaged = Trouble::Sql(sqlx::Error::ColumnNotFound("state".to_owned())).of("claim");
        assert!(!damaged.is_retryable(), "{damaged}");
        assert!(!Trouble::Conflict("the key is taken".to_owned()).of("create_tenant").is_retryable());
    }

    #[test]
    fn an_error_names_the_verb() {
        let error = Trouble::NotFound("no channel x".to_owned()).of("create_delivery");
        assert_eq!(error.to_string(), "create_delivery: no channel x");
    }

    #[test]
    fn damage_is_told_by_the_low_byte_of_the_code() {
        assert!(is_damage(Some("11")) && is_damage(Some("267")) && is_damage(Some("26")));
        assert!(!is_damage(Some("5")) && !is_damage(Some("13")) && !is_damage(None));
    }
}
