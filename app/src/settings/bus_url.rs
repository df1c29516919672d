//! The address of the bus: one scalar that chooses the backend.

use std::fmt;

use actors::bus::RedisBus;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, de::Error};

use super::types;

/// `bus.url`. Displayed without user and password.
#[derive(Debug, Clone)]
pub enum BusUrl {
    /// `memory:`: within this process.
    Memory,
    /// `redis://...` or `rediss://...`: between all processes with the same Redis and prefix.
    Redis(SecretString),
}

impl<'de> Deserialize<'de> for BusUrl {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let url = types::text(from)?;
        match url.split_once(':') {
            Some(("memory", "")) => Ok(Self::Memory),
            Some(("redis" | "rediss", _)) => match RedisBus::check(&url) {
                Ok(()) => Ok(Self::Redis(url.into())),
                Err(refused) => Err(Error::custom(refused)),
            },
            _ => Err(Error::custom("must be memory: or redis://HOST:PORT")),
        }
    }
}

impl BusUrl {
    /// With `http` in place of `redis`, so that a host is read as a browser would: `url` takes the host of a scheme that it
    /// does not know for any text.
    pub(super) fn dialled(&self) -> Option<String> {
        match self {
            Self::Memory => None,
            Self::Redis(url) => Some(url.expose_secret().replacen("redis", "http", 1)),
        }
    }
}

impl fmt::Display for BusUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory:"),
            Self::Redis(url) => {
                let (scheme, rest) = url.expose_secret().split_once("://").unwrap_or_default();
                let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
                write!(f, "{scheme}://{host}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> BusUrl {
        serde_json::from_value(text.into()).unwrap()
    }

    #[test]
    fn an_address_is_shown_without_the_user_and_the_password() {
        assert_eq!(url("memory:").to_string(), "memory:");
        assert_eq!(url("redis://cache:6379").to_string(), "redis://cache:6379");
        let secret = url("rediss://me:s3cret@cache:6380/0");
        assert_eq!(secret.to_string(), "rediss://cache:6380/0");
        assert!(!format!("{secret:?}").contains("s3cret"));
    }

    #[test]
    fn the_host_is_one_that_can_be_judged() {
        assert_eq!(url("rediss://:p@127.0.0.1").dialled().as_deref(), Some("https://:p@127.0.0.1"));
        assert_eq!(url("memory:").dialled(), None);
    }
}
