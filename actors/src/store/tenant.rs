//! A tenant as it is kept. Its key never is: only the hash.

use std::fmt;

use secrecy::SecretString;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::model::{Millis, TenantId};

/// Who the service works for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Its name.
    pub id: TenantId,
    /// When it was made.
    pub created_at_ms: Millis,
    /// Since when it may do nothing; `None` while it may.
    pub disabled_at_ms: Option<Millis>,
    /// Its own limits, where they differ from the defaults.
    pub quotas: Quotas,
    /// The number of its last change; 0 if it never changed. Counted over all tenants.
    pub version: i64,
    /// The number of the change that gave it its present key; 0 for its first key.
    pub key_version: i64,
}

/// What a tenant may have, where that differs from the defaults; `None` is the default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Quotas {
    /// Requests in a second, on average. At least 1.
    pub requests_per_s: Option<u32>,
    /// Requests that may come at once after a rest. At least 1.
    pub requests_burst: Option<u32>,
    /// Requests that are worked on at once in one process. At least 1.
    pub requests_at_once: Option<u32>,
    /// Sockets open in one process.
    pub sockets: Option<u32>,
    /// Subscriptions of all its sockets in one process.
    pub subscriptions: Option<u32>,
    /// How much of the claims is its, beside others that wait: twice the weight, twice the jobs. 1 to 1000.
    pub job_weight: Option<u32>,
    /// Jobs that run at a time, in all processes and queues together. At least 1.
    pub jobs_running: Option<u32>,
    /// Jobs that are not finished and do not run. More are refused.
    pub jobs_queued: Option<u32>,
    /// Jobs that start in a second, on average, in all processes together; after a rest those of one second at once. At
    /// least 1. By default there is no such limit.
    pub job_starts_per_s: Option<u32>,
}

/// SHA-256 of a tenant's key.
///
/// Keys have 244 random bits. A slow hash makes it dear to try out the few secrets that people think of; nobody can try out
/// 2^244, so it would protect nothing here, and cost every request.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct KeyHash(String);

impl KeyHash {
    /// Hashes a key as the tenant sends it.
    pub fn of(key: &str) -> Self {
        Self(Sha256::digest(key.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// 64 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for KeyHash {
    /// Shows the start only: enough to compare two, useless to anyone else.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyHash({}...)", &self.0[..8])
    }
}

/// A new key: `pk_`, by which scanners of source code know what they have found, and 244 random bits of the operating
/// system (two random UUIDs of 122 each) in 64 hexadecimal digits.
pub fn new_key() -> SecretString {
    format!("pk_{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple()).into()
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_key_is_hashed_with_sha_256() {
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(KeyHash::of("abc").as_str(), known);
        assert!(!format!("{:?}", KeyHash::of("abc")).contains(known));
    }

    #[test]
    fn a_new_key_is_long_marked_and_never_the_same() {
        let (one, other) = (new_key(), new_key());
        assert!(one.expose_secret().starts_with("pk_") && one.expose_secret().len() == 67);
        assert_ne!(one.expose_secret(), other.expose_secret());
        assert!(!format!("{one:?}").contains("pk_"));
    }
}
