//! The address of the store: one scalar that chooses the backend.

use std::fmt;

use actors::store::{PostgresStore, StoreError};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, de::Error};

use super::types;

const EXPECTED: &str = "must be sqlite://PATH or postgres://USER:PASSWORD@HOST:PORT/DATABASE";

/// `store.url`. Displayed without user and password.
#[derive(Debug, Clone)]
pub enum StoreUrl {
    /// `sqlite://PATH`: a file of this process alone.
    Sqlite(String),
    /// `postgres://...` or `postgresql://...`: shared by any number of processes.
    Postgres(SecretString),
}

impl<'de> Deserialize<'de> for StoreUrl {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let url = types::text(from)?;
        match url.split_once(':').map(|(scheme, rest)| (scheme, rest.strip_prefix("//").unwrap_or_default())) {
            Some(("sqlite", path)) if path.contains(":memory:") || path.contains("mode=memory") => {
                Err(Error::custom("must name a file, sqlite://PATH: a store in memory would forget what was accepted"))
            }
            Some(("sqlite", path)) if !path.trim_matches('/').is_empty() => Ok(Self::Sqlite(url)),
            Some(("postgres" | "postgresql", _)) => match PostgresStore::check(&url) {
                Ok(()) => Ok(Self::Postgres(url.into())),
                Err(StoreError::Address { what }) => Err(Error::custom(format_args!("{EXPECTED}: {what}"))),
                Err(refused) => Err(Error::custom(refused)),
            },
            _ => Err(Error::custom(EXPECTED)),
        }
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(url) => f.write_str(url),
            Self::Postgres(url) => {
                let (scheme, rest) = url.expose_secret().split_once("://").unwrap_or_default();
                let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
                // What stands behind the database is how it is reached, and may name files of keys.
                write!(f, "{scheme}://{}", host.split('?').next().unwrap_or_default())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> StoreUrl {
        serde_json::from_value(text.into()).unwrap()
    }

    #[test]
    fn an_address_is_shown_without_the_user_and_the_password() {
        assert_eq!(url("sqlite://data/a@b.db").to_string(), "sqlite://data/a@b.db");
        let secret = url("postgresql://me:s3cret@db:5432/app?sslmode=verify-full");
        assert_eq!(secret.to_string(), "postgresql://db:5432/app");
        assert!(!format!("{secret:?}").contains("s3cret"));
    }
}
